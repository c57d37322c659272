//! What both ends of the wire hold to beside the messages' types.

use std::collections::BTreeMap;

use crate::limits::LABELS;

/// Metadata of a status that is a refusal by a rule of the trust documents: the rule's name.
pub const REFUSAL_METADATA: &str = "consign-refusal";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("labels: {why}")]
pub struct InvalidLabels {
    pub why: String,
}

/// A server's labels, of which there is a limited number.
pub fn labels<I: IntoIterator<Item = (String, String)>>(
    given: I,
) -> Result<BTreeMap<String, String>, InvalidLabels> {
    let invalid = |why| InvalidLabels { why };
    let mut labels = BTreeMap::new();
    for (name, value) in given {
        check_label(&name, &value).map_err(invalid)?;
        labels.insert(name, value);
        if labels.len() > LABELS {
            return Err(invalid(format!("more than {LABELS}")));
        }
    }
    Ok(labels)
}

/// Labels are typed in selectors and conditions, and shown in terminals.
pub fn check_label(name: &str, value: &str) -> Result<(), String> {
    let of_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > 63 || !name.bytes().all(of_name) {
        let shown: String = name.chars().take(80).collect();
        return Err(format!("label name {shown:?}: 1 to 63 of a-z, 0-9, '_' and '-'"));
    }
    let of_value = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if value.len() > 63 || !value.bytes().all(of_value) {
        let shown: String = value.chars().take(80).collect();
        return Err(format!("label {name}: {shown:?} is not at most 63 of A-Z, a-z, 0-9, '.', '_' and '-'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_in_number_and_alphabet() {
        let label = |name: &str, value: &str| labels([(name.to_owned(), value.to_owned())]);
        assert_eq!(label("role", "web").unwrap().get("role").map(String::as_str), Some("web"));
        label("empty", "").unwrap();
        for (name, value) in
            [("", "x"), ("a b", "x"), ("A", "x"), ("a", "x y"), ("a", "\u{1b}[31m"), ("a=b", "x")]
        {
            assert!(label(name, value).is_err(), "{name:?} {value:?}");
        }
        assert!(label(&"a".repeat(64), "x").is_err());
        assert!(label("a", &"x".repeat(64)).is_err());
        assert!(labels((0..=LABELS).map(|n| (format!("l{n}"), String::new()))).is_err());
        labels((0..LABELS).map(|n| (format!("l{n}"), String::new()))).unwrap();
    }
}
