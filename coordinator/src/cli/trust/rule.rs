//! A gate's rules as people write and read them: `approval by 2 of product-owners`, `test-result by qa where
//! predicate.result == "PASSED"`. Pure.

use std::str::FromStr;

use consign_common::{
    name::Owner,
    terminal::escape_line,
    trust::{APPROVAL, Gate, GateRule, Separation},
};

/// The predicate types that have short names.
const SHORT: [(&str, &str); 2] =
    [("approval", APPROVAL), ("test-result", "https://in-toto.io/attestation/test-result/v0.1")];
const PASSED: &str = "predicate.result == \"PASSED\"";
const RULE: &str = "a rule is PREDICATE:ROLE[:THRESHOLD] or 'PREDICATE by [N of] ROLE', then perhaps 'where CONDITION'; \
                    a PREDICATE is approval, test-result or a predicate type in full";

/// As an option has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleText(pub(super) GateRule);

impl FromStr for RuleText {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (head, condition) = match text.split_once(" where ") {
            Some((head, condition)) => (head.trim(), Some(condition.trim().to_owned())),
            None => (text.trim(), None),
        };
        let (predicate, role, threshold) = words(head).or_else(|| fields(head)).ok_or(RULE)?;
        if predicate.is_empty() || threshold == 0 || condition.as_ref().is_some_and(String::is_empty) {
            return Err(RULE.into());
        }
        let long = SHORT.iter().find(|(short, _)| *short == predicate).map(|(_, long)| *long);
        if long.is_none() && !predicate.contains(':') {
            return Err(format!("{predicate:?} is no predicate type: {RULE}"));
        }
        let role = role.parse::<Owner>().map_err(|error| format!("{error}; {RULE}"))?;
        Ok(Self(GateRule { predicate: long.unwrap_or(predicate).to_owned(), role, threshold, condition }))
    }
}

/// `approval by 2 of product-owners`
fn words(head: &str) -> Option<(&str, &str, u32)> {
    let (predicate, rest) = head.split_once(" by ")?;
    let (threshold, role) = match rest.split_once(" of ") {
        Some((number, role)) => (number.trim().parse().ok()?, role),
        None => (1, rest),
    };
    Some((predicate.trim(), role.trim(), threshold))
}

/// `approval:product-owners:2`; a predicate type has colons of its own.
fn fields(head: &str) -> Option<(&str, &str, u32)> {
    let (rest, last) = head.rsplit_once(':')?;
    match last.parse() {
        Ok(threshold) => rest.rsplit_once(':').map(|(predicate, role)| (predicate, role, threshold)),
        Err(_) => Some((rest, last, 1)),
    }
}

/// `approval by 1 of product-owners`
pub(super) fn rule_text(rule: &GateRule) -> String {
    let short = SHORT.iter().find(|(_, long)| *long == rule.predicate).map(|(short, _)| *short);
    let text = format!("{} by {} of {}", short.unwrap_or(&rule.predicate), rule.threshold, rule.role);
    match &rule.condition {
        // Whoever drafted it chose the text: it must not be able to hide what is beside it.
        Some(condition) => format!("{text} where {}", escape_line(condition)),
        None => text,
    }
}

/// What a gate lets through that was hardly meant: any result of a test, also a failed one.
pub(super) fn warning(rule: &GateRule) -> Option<String> {
    let tests = SHORT.iter().any(|(short, long)| *short == "test-result" && *long == rule.predicate);
    (tests && rule.condition.is_none()).then(|| {
        let text = rule_text(rule);
        format!("{text}: FAILED counts, too; for those that passed say '{text} where {PASSED}'")
    })
}

/// What an environment requires, in one line.
pub(in crate::cli) fn gate_text(gate: &Gate) -> String {
    let all = |rules: &[GateRule]| rules.iter().map(rule_text).collect::<Vec<_>>().join(", ");
    match gate {
        Gate::PublisherOnly {} => "publisher-only".to_owned(),
        Gate::Statements { require, rearm, separation } => {
            let mut text = all(require);
            if !rearm.is_empty() {
                text.push_str(&format!("; after a failure also {}", all(rearm)));
            }
            text + match separation {
                Separation::None => "",
                Separation::Publisher => "; whoever published counts for none of it",
                Separation::All => "; whoever published counts for none of it, and nobody counts twice",
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        text.parse::<RuleText>().map(|rule| rule_text(&rule.0))
    }

    #[test]
    fn a_rule_is_written_in_two_ways_and_read_in_one() {
        for text in ["approval:po", "approval:po:1", "approval by po", "approval by 1 of po"] {
            assert_eq!(read(text).unwrap(), "approval by 1 of po", "{text}");
        }
        let tested = "test-result:qa:1 where predicate.result == \"PASSED\"";
        assert_eq!(read(tested).unwrap(), "test-result by 1 of qa where predicate.result == \"PASSED\"");
        let foreign = "https://example.com/scan/v1:security:2";
        assert_eq!(read(foreign).unwrap(), "https://example.com/scan/v1 by 2 of security");
        let RuleText(rule) = foreign.parse().unwrap();
        assert_eq!((rule.predicate.as_str(), rule.threshold), ("https://example.com/scan/v1", 2));
        // What is shown can be given again.
        for text in [tested, foreign, "approval by 2 of po where predicate.reason != ''"] {
            let shown = read(text).unwrap();
            assert_eq!(read(&shown).unwrap(), shown);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in [
            "",
            "approval",
            "approval by",
            "approval:",
            ":po",
            "approval:po:0",
            "aproval:po",
            "approval by 0 of po",
            "approval by x of po",
            "approval:PO",
            "approval:po where ",
            "approval by 99999999999 of po",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_test_result_that_may_have_failed_is_warned_of() {
        let warned = |text: &str| warning(&text.parse::<RuleText>().unwrap().0);
        let words = warned("test-result by qa").unwrap();
        assert!(words.contains("FAILED counts"), "{words}");
        // What it says can be said.
        let better = words.split('\'').nth(1).unwrap();
        assert_eq!(warned(better), None, "{better}");
        assert_eq!(warned("approval by po"), None);
        assert_eq!(warned("https://example.com/scan/v1 by security"), None);
    }

    #[test]
    fn a_condition_hides_nothing() {
        let RuleText(mut rule) = "approval:po where true".parse().unwrap();
        rule.condition = Some("true\u{1b}[2K\n+ nothing".into());
        let shown = rule_text(&rule);
        assert!(!shown.contains(['\u{1b}', '\n']), "{shown:?}");
    }

    #[test]
    fn a_gate_is_one_line() {
        let rule = |text: &str| text.parse::<RuleText>().unwrap().0;
        let gate = Gate::Statements {
            require: vec![rule("test-result:qa"), rule("approval:po")],
            rearm: vec![rule("approval:po")],
            separation: Separation::Publisher,
        };
        insta::assert_snapshot!(gate_text(&gate));
    }
}
