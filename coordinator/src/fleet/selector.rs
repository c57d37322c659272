//! Which servers: `web-1,web-2` by name, `role=web,zone!=b` by labels, nothing for all.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use consign_common::name::{InvalidName, ServerName};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    All,
    /// Any of these.
    Names(BTreeSet<ServerName>),
    /// All of these.
    Labels(Vec<Term>),
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    key: String,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    /// Also true of a server without the label.
    Differs,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    #[error("the selector is longer than {SELECTOR_BYTES} bytes")]
    TooLong,
    #[error("there is nothing between two commas, or before the first, or after the last")]
    Empty,
    #[error(
        "{term:?} is a name among labels; write names (web-1,web-2) or labels (role=web,zone!=b), not both"
    )]
    Mixed { term: String },
    #[error("{term:?}: a label is written key=value or key!=value, of letters, digits and . - _ /")]
    Label { term: String },
    #[error(transparent)]
    Name(#[from] InvalidName),
}

const SELECTOR_BYTES: usize = 64 << 10;

impl Selector {
    pub fn matches(&self, name: &ServerName, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(name),
            Self::Labels(terms) => terms.iter().all(|term| term.matches(labels)),
        }
    }

    /// Names that were asked for by name and are not among `known`: a typing error, which must not pass as "none".
    pub fn unknown<'a>(&'a self, known: &BTreeSet<&ServerName>) -> Vec<&'a ServerName> {
        match self {
            Self::All | Self::Labels(_) => Vec::new(),
            Self::Names(names) => names.iter().filter(|name| !known.contains(name)).collect(),
        }
    }
}

impl Term {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = labels.get(&self.key) == Some(&self.value);
        match self.operator {
            Operator::Equals => equal,
            Operator::Differs => !equal,
        }
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;
    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > SELECTOR_BYTES {
            return Err(InvalidSelector::TooLong);
        }
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::All);
        }
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(InvalidSelector::Empty);
        }
        if !text.contains('=') {
            return Ok(Self::Names(parts.into_iter().map(str::parse).collect::<Result<_, _>>()?));
        }
        parts.into_iter().map(term).collect::<Result<_, _>>().map(Self::Labels)
    }
}

fn term(text: &str) -> Result<Term, InvalidSelector> {
    let shown = || text.chars().take(80).collect::<String>();
    let (left, value) = text.split_once('=').ok_or_else(|| InvalidSelector::Mixed { term: shown() })?;
    let (key, operator) = match left.strip_suffix('!') {
        Some(key) => (key, Operator::Differs),
        None => (left, Operator::Equals),
    };
    let (key, value) = (key.trim(), value.trim());
    if !is_word(key) || !(value.is_empty() || is_word(value)) {
        return Err(InvalidSelector::Label { term: shown() });
    }
    Ok(Term { key: key.to_owned(), operator, value: value.to_owned() })
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, name: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        selector.parse::<Selector>().unwrap().matches(&name.parse().unwrap(), &labels)
    }

    #[test]
    fn nothing_means_all_and_names_mean_any() {
        assert!(matches("", "web-1", &[]));
        assert!(matches(" web-1, web-2 ", "web-2", &[]));
        assert!(!matches("web-1,web-2", "web-3", &[]));
    }

    #[test]
    fn labels_mean_all() {
        let web_a = [("role", "web"), ("zone", "a")];
        assert!(matches("role=web", "x", &web_a));
        assert!(matches("role=web,zone!=b", "x", &web_a));
        assert!(!matches("role=web,zone!=a", "x", &web_a));
        assert!(matches("zone!=b", "x", &[]));
        assert!(!matches("zone=b", "x", &[]));
        assert!(matches("note=", "x", &[("note", "")]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (bad, word) in [
            (",", "comma"),
            ("web-1,", "comma"),
            ("role=web,web-1", "not both"),
            ("=web", "key=value"),
            ("role==web", "key=value"),
            ("Web-1", "server name"),
            ("a b", "server name"),
            ("role=w b", "key=value"),
        ] {
            let error = bad.parse::<Selector>().unwrap_err();
            assert!(error.to_string().contains(word), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_misspelt_name_is_told() {
        let selector: Selector = "web-1,wbe-2".parse().unwrap();
        let web_1 = "web-1".parse().unwrap();
        let unknown = selector.unknown(&BTreeSet::from([&web_1]));
        assert_eq!(unknown.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["wbe-2"]);
    }
}
