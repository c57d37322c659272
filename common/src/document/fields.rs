//! Reading TOML tables key by key, with the place of everything: what serde's derive cannot do is go on after the first
//! mistake.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Problems;

/// Where in the file something stands, and what it is.
#[derive(Clone, Debug)]
pub struct Located<T> {
    pub span: Range<usize>,
    pub value: T,
}

/// The longest span of time that a document may name: a week.
const LONGEST: Duration = Duration::from_secs(168 * 3600);

/// A table whose keys are taken one by one; [`finish`](Self::finish) reports those that nobody asked for.
#[derive(Debug)]
pub struct Fields<'a, 'i> {
    /// For messages: `the plan`, `a step`.
    what: &'static str,
    span: Range<usize>,
    table: &'a DeTable<'i>,
    known: BTreeSet<&'static str>,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// `what` it is, for messages.
    pub fn new(what: &'static str, span: Range<usize>, table: &'a DeTable<'i>) -> Self {
        Self { what, span, table, known: BTreeSet::new() }
    }

    /// Where the table stands.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of `key`, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.insert(key);
        self.table.get(key)
    }

    /// The text of `key`.
    pub fn string(&mut self, key: &'static str, problems: &mut Problems) -> Option<Located<String>> {
        let value = self.take(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Located { span: value.span(), value: text.to_owned() }),
            None => wrong_type(problems, value.span(), key, "a string", value.get_ref()),
        }
    }

    /// The flag of `key`.
    pub fn boolean(&mut self, key: &'static str, problems: &mut Problems) -> Option<Located<bool>> {
        let value = self.take(key)?;
        match value.get_ref().as_bool() {
            Some(flag) => Some(Located { span: value.span(), value: flag }),
            None => wrong_type(problems, value.span(), key, "true or false", value.get_ref()),
        }
    }

    /// The number of `key`.
    pub fn integer(&mut self, key: &'static str, problems: &mut Problems) -> Option<Located<i64>> {
        let value = self.take(key)?;
        if !value.get_ref().is_integer() {
            return wrong_type(problems, value.span(), key, "an integer", value.get_ref());
        }
        let number = integer(value.get_ref());
        if number.is_none() {
            problems.add(value.span(), format!("`{key}` does not fit into 64 bits"));
        }
        number.map(|value_number| Located { span: value.span(), value: value_number })
    }

    /// The texts of `key`, each with its place.
    pub fn strings(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Located<Vec<Located<String>>>> {
        let value = self.take(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            return wrong_type(problems, value.span(), key, "an array of strings", value.get_ref());
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Located { span: item.span(), value: text.to_owned() }),
                None => {
                    wrong_type::<()>(problems, item.span(), key, "an array of strings", item.get_ref());
                }
            }
        }
        Some(Located { span: value.span(), value: texts })
    }

    /// The table of `key`.
    pub fn table(&mut self, key: &'static str, problems: &mut Problems) -> Option<Fields<'a, 'i>> {
        let value = self.take(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Fields::new(key, value.span(), table)),
            None => wrong_type(problems, value.span(), key, "a table", value.get_ref()),
        }
    }

    /// A span of time, as `"5m"`.
    pub fn span_of_time(&mut self, key: &'static str, problems: &mut Problems) -> Option<Located<Duration>> {
        let Located { span, value } = self.string(key, problems)?;
        match duration(&value) {
            Ok(value) => Some(Located { span, value }),
            Err(why) => {
                problems.add(span, format!("`{key}`: {why}"));
                None
            }
        }
    }

    /// Every key and value: for a table whose keys its author chooses.
    pub fn entries(&self) -> impl Iterator<Item = (Located<&'a str>, &'a Spanned<DeValue<'i>>)> {
        self.table
            .iter()
            .map(|(key, value)| (Located { span: key.span(), value: key.get_ref().as_ref() }, value))
    }

    /// Reports that `key` must be there.
    pub fn missing(&self, key: &str, problems: &mut Problems) {
        problems.add(self.span(), format!("{} has no `{key}`", self.what));
    }

    /// Reports every key that was never asked for.
    pub fn finish(self, problems: &mut Problems) {
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(name) {
                let message = format!("unknown key `{}` in {}", name.escape_debug(), self.what);
                let help = did_you_mean(name, self.known.iter().copied());
                problems.add_with_help(key.span(), message, help);
            }
        }
    }
}

/// Reports a value of another type than `key` has; gives nothing.
pub fn wrong_type<T>(
    problems: &mut Problems,
    span: Range<usize>,
    key: &str,
    expected: &str,
    found: &DeValue<'_>,
) -> Option<T> {
    problems.add(span, format!("`{key}` must be {expected}, not {}", found.type_str()));
    None
}

/// A TOML integer of any radix; `None` beyond 64 bits.
pub fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// `did you mean ...?`, where a known word is near enough.
pub fn did_you_mean<'w>(given: &str, known: impl IntoIterator<Item = &'w str>) -> Option<String> {
    if given.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(given, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.len() / 4)
        .min()
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

/// `500ms`, `30s`, `5m`, `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let (Ok(number), Some(unit)) = (number.parse::<u64>(), milliseconds) else {
        return Err("a span of time is written like \"500ms\", \"30s\", \"5m\" or \"2h\"".into());
    };
    let span = Duration::from_millis(number.saturating_mul(unit));
    if span.is_zero() || span > LONGEST {
        return Err("a span of time lies between 1ms and 168h".into());
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_have_one_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "5", "m", "5 m", "-5s", "0s", "1.5s", "5d", "99999999999999999999s", "169h", "5m30s"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
