//! Strict JSON: one way to read our own documents.
//!
//! What two parsers may read differently is refused before serde sees it: duplicate keys, floats and exponents (`1e3`),
//! numbers beyond 64 bits, deep nesting, a byte order mark, bytes after the end, invalid UTF-8. A document is walked
//! twice, once for these rules and once into its type; both walks are bounded by the size that the caller allows.

use std::{collections::BTreeSet, fmt};

use serde::{
    Serialize,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::limits::JSON_DEPTH;

/// Bytes that are not the JSON that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
    #[error("{bytes} bytes, at most {max} are allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error("invalid UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("a byte order mark is not allowed")]
    ByteOrderMark,
    /// Syntax, a rule of this module, or a field that does not fit; without control characters.
    #[error("{why}")]
    Malformed { why: String },
}

/// Reads one of our own documents.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize) -> Result<T, InvalidJson> {
    read(bytes, max_bytes, Numbers::Integers)
}

/// Reads one of our own documents that something is decided by. serde also takes a list of values for an object, and
/// `null` for a field that is left out; here each value has one form.
pub fn from_slice_exact<T: DeserializeOwned + Serialize>(
    bytes: &[u8],
    max_bytes: usize,
) -> Result<T, InvalidJson> {
    let document: T = from_slice(bytes, max_bytes)?;
    let given: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    if serde_json::to_value(&document).map_err(malformed)? != given {
        let why = "a list stands for an object, or null for a field that is left out".to_owned();
        return Err(InvalidJson::Malformed { why });
    }
    Ok(document)
}

/// Reads somebody else's document, in which numbers may be fractions. Everything else is as strict.
pub fn from_slice_foreign<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize) -> Result<T, InvalidJson> {
    read(bytes, max_bytes, Numbers::Any)
}

/// Compact, and the same for the same value: fields in the order of the type, maps in the order of their keys.
///
/// Our documents are structs, lists and maps with text keys, which serialize without failing; a type for which that is
/// not so gives the empty document, which no reader accepts.
pub fn to_vec<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

fn read<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize, numbers: Numbers) -> Result<T, InvalidJson> {
    if bytes.len() > max_bytes {
        return Err(InvalidJson::TooLarge { bytes: bytes.len(), max: max_bytes });
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| InvalidJson::NotUtf8 { at: error.valid_up_to() })?;
    if text.starts_with('\u{feff}') {
        return Err(InvalidJson::ByteOrderMark);
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    Rules { depth: 0, numbers }.deserialize(&mut parser).map_err(malformed)?;
    parser.end().map_err(malformed)?;
    serde_json::from_str(text).map_err(malformed)
}

/// serde's messages quote the document, which is not ours: bounded, and without control characters.
fn malformed(error: serde_json::Error) -> InvalidJson {
    let text = error.to_string();
    let shown = text.chars().take(300).map(|c| if c.is_control() { '\u{fffd}' } else { c });
    InvalidJson::Malformed { why: shown.collect() }
}

#[derive(Clone, Copy)]
enum Numbers {
    Integers,
    Any,
}

/// serde_json hides values under such keys when it parses into a `Value`: text inside would be parsed again.
const PRIVATE_KEYS: &str = "$serde_json::private::";

/// Walks a value without keeping it. serde_json's own recursion limit (128) lies beyond ours, so the stack is bounded.
#[derive(Clone, Copy)]
struct Rules {
    depth: usize,
    numbers: Numbers,
}

impl Rules {
    fn inside<E: Error>(self) -> Result<Self, E> {
        if self.depth >= JSON_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {JSON_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Rules {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rules {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strict JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        match self.numbers {
            Numbers::Any => Ok(()),
            Numbers::Integers => Err(E::custom("a number that is not a plain 64-bit integer")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while list.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if key.starts_with(PRIVATE_KEYS) {
                return Err(A::Error::custom(format_args!("the key {key:?} is reserved")));
            }
            map.next_value_seed(inside)?;
            if let Some(key) = keys.replace(key) {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    const MAX: usize = 1 << 20;

    #[derive(Debug, PartialEq, Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        a: u64,
        b: BTreeMap<String, String>,
    }

    fn why(bytes: &[u8]) -> String {
        from_slice::<Value>(bytes, MAX).expect_err("must be refused").to_string()
    }

    #[test]
    fn writes_what_it_reads() {
        let text = br#"{"a":1,"b":{"x":"y"}}"#;
        assert_eq!(to_vec(&from_slice::<Small>(text, MAX).unwrap()), text);
        from_slice::<Small>(b" { \"b\" : {} , \"a\" : 18446744073709551615 }\n", MAX).unwrap();
    }

    #[test]
    fn refuses_what_two_parsers_may_read_differently() {
        assert!(why(br#"{"a":1,"a":1}"#).contains("duplicate key \"a\""));
        assert!(why(br#"{"x":[{"a":1,"\u0061":2}]}"#).contains("duplicate key"), "also spelled differently");
        for number in ["1e3", "1.0", "1E0", "-0", "18446744073709551616", "-9223372036854775809", "1e999"] {
            assert!(from_slice::<Value>(format!("[{number}]").as_bytes(), MAX).is_err(), "{number}");
        }
        for bad in
            ["", " ", "{}{}", "{} x", "{}\0", "[1,]", "{\"a\":1,}", "01", "+1", "NaN", "'a'", "// c\n1"]
        {
            assert!(from_slice::<Value>(bad.as_bytes(), MAX).is_err(), "{bad:?}");
        }
        assert_eq!(from_slice::<Value>(b"\xef\xbb\xbf{}", MAX), Err(InvalidJson::ByteOrderMark));
        assert_eq!(from_slice::<Value>(b"{\"a\":\"\xff\"}", MAX), Err(InvalidJson::NotUtf8 { at: 6 }));
        assert!(from_slice::<Value>(br#"["\ud800"]"#, MAX).is_err(), "half a surrogate pair");
        assert!(why(b"[\"a\x01\"]").contains("control"));
        assert!(why(br#"{"$serde_json::private::RawValue":"{\"a\":1.5}"}"#).contains("reserved"));
    }

    #[test]
    fn an_exact_document_has_one_form() {
        #[derive(Debug, PartialEq, Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        struct Outer {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            note: Option<String>,
            inner: Small,
        }
        from_slice_exact::<Outer>(br#"{ "inner": {"b":{},"a":1} }"#, MAX).unwrap();
        for other in
            [r#"{"inner":[1,{}]}"#, r#"{"note":null,"inner":{"a":1,"b":{}}}"#, r#"[null,{"a":1,"b":{}}]"#]
        {
            from_slice::<Outer>(other.as_bytes(), MAX).unwrap();
            let error = from_slice_exact::<Outer>(other.as_bytes(), MAX).unwrap_err();
            assert!(error.to_string().contains("list"), "{error}");
        }
    }

    #[test]
    fn refuses_unknown_fields_without_repeating_control_characters() {
        let error =
            from_slice::<Small>(b"{\"a\":1,\"b\":{},\"\\u001b[31m\":1}", MAX).unwrap_err().to_string();
        assert!(error.contains("unknown field") && !error.contains('\u{1b}'), "{error:?}");
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        from_slice::<Value>(nested(JSON_DEPTH).as_bytes(), MAX).unwrap();
        assert!(why(nested(JSON_DEPTH + 1).as_bytes()).contains("nested deeper"));
        assert!(why(nested(10_000).as_bytes()).contains("nested deeper"));
        assert!(why("{\"a\":".repeat(10_000).as_bytes()).contains("nested deeper"));
        assert_eq!(from_slice::<Value>(b"[1]", 2), Err(InvalidJson::TooLarge { bytes: 3, max: 2 }));
    }

    #[test]
    fn foreign_documents_may_hold_fractions_and_nothing_else_more() {
        from_slice_foreign::<Value>(br#"{"seconds":1.5,"n":1e3}"#, MAX).unwrap();
        assert!(from_slice_foreign::<Value>(br#"{"a":1.5,"a":1.5}"#, MAX).is_err());
        assert!(from_slice_foreign::<Value>("[".repeat(10_000).as_bytes(), MAX).is_err());
    }

    /// Numbers of others' statements, which a gate's `where` compares.
    #[test]
    fn a_number_of_anothers_is_read_to_the_last_bit() {
        let digits = "7698".repeat(30);
        for text in [
            digits.as_str(),
            "0.1",
            "2.2250738585072014e-308",
            "1.7976931348623157e308",
            "9007199254740993.5",
        ] {
            let read = from_slice_foreign::<Value>(text.as_bytes(), MAX).unwrap();
            assert_eq!(read.as_f64(), text.parse().ok(), "{text}");
            assert_eq!(from_slice_foreign::<Value>(&to_vec(&read), MAX).unwrap(), read, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(from_slice::<Value>(&bytes, MAX));
        }

        #[test]
        fn what_is_read_is_written_and_read_again(text in r#"[\[\]{}",:a1 ]{0,30}"#) {
            if let Ok(value) = from_slice::<Value>(text.as_bytes(), MAX) {
                prop_assert_eq!(from_slice::<Value>(&to_vec(&value), MAX), Ok(value));
            }
        }
    }
}
