//! Generated types to domain types: what comes over the wire is text until it has passed here.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use crate::limits::LABELS;

/// A field of a message that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct InvalidField {
    pub field: &'static str,
    pub why: String,
}

/// A name, an id, a digest: whatever has one text form.
pub fn field<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Result<T, InvalidField> {
    text.parse().map_err(|error: T::Err| InvalidField { field, why: error.to_string() })
}

/// The same where an empty text stands for nothing, as protobuf has it.
pub fn optional<T: FromStr<Err: Display>>(name: &'static str, text: &str) -> Result<Option<T>, InvalidField> {
    if text.is_empty() { Ok(None) } else { field(name, text).map(Some) }
}

/// A server's labels, of which there is a limited number.
pub fn labels<I: IntoIterator<Item = (String, String)>>(
    given: I,
) -> Result<BTreeMap<String, String>, InvalidField> {
    let invalid = |why| InvalidField { field: "labels", why };
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
    use crate::{digest::Sha256, name::App};

    #[test]
    fn a_bad_field_is_named() {
        assert_eq!(field::<App>("app", "shop").unwrap().as_str(), "shop");
        assert!(field::<App>("app", "../shop").unwrap_err().to_string().starts_with("app: "));
        assert_eq!(optional::<Sha256>("good", ""), Ok(None));
        assert!(optional::<Sha256>("good", "abc").is_err());
        assert!(field::<Sha256>("digest", "").is_err());
    }

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
