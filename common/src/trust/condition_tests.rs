use serde_json::json;

use super::*;

fn holds(text: &str, predicate: &Value) -> Result<bool, WhereFailed> {
    Where::compile(text).unwrap_or_else(|error| panic!("{text}: {error}")).holds(predicate)
}

fn refused(text: &str) -> String {
    Where::compile(text).map(drop).expect_err(text).to_string()
}

fn sample() -> Value {
    json!({
        "result": "PASSED", "failed": 0, "share": 0.75, "big": u64::MAX, "ok": true, "none": null,
        "suites": [{"name": "unit", "passed": true, "count": 10}, {"name": "e2e", "passed": true, "count": 2}],
        "tags": ["a", "b"], "numbers": [1, 2.5, -3], "by": {"name": "qa", "team": "one"}, "empty": []
    })
}

#[test]
fn what_holds_holds_and_what_does_not_does_not() {
    for (text, expected) in [
        ("predicate.result == 'PASSED'", true),
        ("predicate.result == \"FAILED\"", false),
        ("predicate.result != 'FAILED'", true),
        ("predicate.ok", true),
        ("!predicate.ok", false),
        ("predicate.failed == 0", true),
        ("predicate.failed < 1 && predicate.failed <= 0", true),
        ("predicate.failed < 0", false),
        ("predicate.failed > 0", false),
        ("predicate.failed >= 0", true),
        ("predicate.failed >= 1", false),
        ("predicate.failed <= -1", false),
        ("predicate.failed == 0.0", true),
        ("predicate.share > 0.7", true),
        ("predicate.share < 1", true),
        ("predicate.big > 9223372036854775807", true),
        ("predicate.big == predicate.big", true),
        ("predicate.none == null", true),
        ("predicate.none == false", false),
        ("predicate.failed == '0'", false),
        ("predicate.failed != '0'", true),
        ("predicate.ok == true", true),
        ("predicate.ok == false", false),
        ("'a' < 'b'", true),
        ("'b' < 'a'", false),
        ("'a' in predicate.tags", true),
        ("'c' in predicate.tags", false),
        ("2.5 in predicate.numbers", true),
        ("predicate.failed in [1, 2]", false),
        ("predicate.result in ['PASSED', 'WARNED']", true),
        ("'team' in predicate.by", true),
        ("'one' in predicate.by", false),
        ("has(predicate.by.team)", true),
        ("has(predicate.by.lead)", false),
        ("predicate.by['name'] == 'qa'", true),
        ("predicate.tags[1] == 'b'", true),
        ("['x', 'y'][1] == 'y'", true),
        ("predicate.tags == ['a', 'b']", true),
        ("predicate.tags == ['a', 'c']", false),
        ("predicate.tags == ['a']", false),
        ("predicate.by == predicate.by", true),
        ("predicate.by == predicate.suites[0]", false),
        ("predicate.suites[0] == predicate.suites[1]", false),
        ("size(predicate.tags) == 2", true),
        ("predicate.by.size() == 2", true),
        ("predicate.result.size() == 6", true),
        ("predicate.empty.size() == 0", true),
        ("predicate.result.startsWith('PASS')", true),
        ("predicate.result.startsWith('ASS')", false),
        ("predicate.result.endsWith('SED')", true),
        ("predicate.result.endsWith('SE')", false),
        ("predicate.result.contains('ASS')", true),
        ("predicate.result.contains('FAIL')", false),
        ("predicate.result.matches('^P.*D$')", true),
        ("predicate.result.matches('^F')", false),
        ("predicate.failed == 0 ? predicate.ok : false", true),
        ("predicate.failed == 1 ? predicate.ok : false", false),
        ("predicate.suites.all(s, s.passed)", true),
        ("predicate.suites.all(s, s.count > 5)", false),
        ("predicate.suites.exists(s, s.count > 5)", true),
        ("predicate.suites.exists(s, s.name == 'load')", false),
        ("predicate.empty.all(s, false)", true),
        ("predicate.empty.exists(s, true)", false),
        ("predicate.by.all(key, key in ['name', 'team'])", true),
        ("predicate.by.exists(key, key == 'lead')", false),
        ("predicate.suites.all(s, s.name in predicate.tags)", false),
        ("predicate.suites.all(s, s.passed) && predicate.tags.exists(t, t == 'b')", true),
    ] {
        assert_eq!(holds(text, &sample()), Ok(expected), "{text}");
    }
}

#[test]
fn one_side_that_decides_makes_good_for_the_other() {
    for (text, expected) in [
        ("predicate.missing == 1 || predicate.ok", Some(true)),
        ("predicate.ok || predicate.missing == 1", Some(true)),
        ("predicate.missing == 1 || !predicate.ok", None),
        ("!predicate.ok || predicate.missing == 1", None),
        ("predicate.missing == 1 && !predicate.ok", Some(false)),
        ("!predicate.ok && predicate.missing == 1", Some(false)),
        ("predicate.missing == 1 && predicate.ok", None),
        ("predicate.ok && predicate.missing == 1", None),
        ("predicate.suites.exists(s, s.missing || s.name == 'e2e')", Some(true)),
        ("predicate.numbers.exists(n, n.x == 1)", None),
        ("[1, 'a'].exists(n, n < 2)", Some(true)),
        ("['a', 1].exists(n, n < 2)", Some(true)),
        ("['a', 1].exists(n, n < 1)", None),
        ("['a', 1].all(n, n < 1)", Some(false)),
        ("['a', 0].all(n, n < 1)", None),
    ] {
        match expected {
            Some(expected) => assert_eq!(holds(text, &sample()), Ok(expected), "{text}"),
            None => assert!(holds(text, &sample()).is_err(), "{text}"),
        }
    }
}

#[test]
fn what_fails_says_why() {
    for (text, why) in [
        ("predicate.missing == 1", "it has no field \"missing\""),
        ("predicate.by['lead'] == 'x'", "it has no element \"lead\""),
        ("predicate.tags[2] == 'x'", "it has no element 2"),
        ("predicate.tags[-1] == 'x'", "it has no element -1"),
        ("predicate.tags[0.5] == 'x'", "it has no element 0.5"),
        ("predicate.tags['a'] == 'x'", "`[...]` does not apply to a list"),
        ("predicate.by[0] == 'x'", "`[...]` does not apply to a map"),
        ("predicate.result.name == 'x'", "a field does not apply to a string"),
        ("has(predicate.result.name)", "a field does not apply to a string"),
        ("predicate.failed", "a condition does not apply to a number"),
        ("!predicate.none", "a condition does not apply to null"),
        ("predicate.result < 1", "a comparison does not apply to a number"),
        ("1 < predicate.result", "a comparison does not apply to a string"),
        ("predicate.ok < true", "a comparison does not apply to a bool"),
        ("predicate.ok in predicate.result", "`in` does not apply to a string"),
        ("1 in predicate.by", "`in` does not apply to a map"),
        ("size(predicate.failed) == 1", "`size` does not apply to a number"),
        ("predicate.failed.startsWith('a')", "a function of strings does not apply to a number"),
        ("predicate.result.contains(1)", "a function of strings does not apply to a number"),
        ("predicate.tags.matches('a')", "a function of strings does not apply to a list"),
        ("predicate.result.all(x, true)", "a loop does not apply to a string"),
    ] {
        assert_eq!(holds(text, &sample()).expect_err(text).to_string(), why, "{text}");
    }
}

#[test]
fn what_is_not_in_the_subset_is_refused_when_it_is_read() {
    for (text, why) in [
        ("", "empty"),
        ("predicate.result ==", "not CEL"),
        ("environment == 'production'", "unknown name `environment`"),
        ("now() == 1", "`now` is not among"),
        ("predicate.a + 1 == 2", "`+` is not among"),
        ("size(predicate.a, 1) == 2", "`size` is not among"),
        ("predicate.a.size(1) == 2", "`size` is not among"),
        ("predicate.a.matches(predicate.b)", "`matches` is not among"),
        ("predicate.a.matches('(')", "regular expression"),
        ("startsWith(predicate.a, 'b')", "`startsWith` is not among"),
        ("predicate.a.map(x, x) == []", "`all` and `exists`"),
        ("predicate.a.filter(x, x) == []", "`all` and `exists`"),
        ("predicate.a.exists_one(x, x)", "`all` and `exists`"),
        ("predicate.a.all(x, x.exists(y, y))", "a loop inside of a loop"),
        ("predicate.a.all(predicate, predicate)", "cannot be called `predicate`"),
        ("predicate.a.all(x, y)", "unknown name `y`"),
        ("predicate.a.all(x, x) && x", "unknown name `x`"),
        ("predicate.a == b'x'", ""),
        ("predicate.a == 1u", "a literal is"),
        ("predicate.a == {}", "unexpected character"),
        ("predicate.a in [predicate.b]", "a list holds literals"),
        ("[1, 2u] == predicate.a", "a literal is"),
    ] {
        let error = refused(text);
        assert!(error.contains(why), "{text}: {error}");
    }
    let long = format!("predicate.a == '{}'", "x".repeat(5000));
    assert!(refused(&long).contains("longer than"));
    assert!(refused(&format!("{}true{}", "(".repeat(40), ")".repeat(40))).contains("nested"));
}

#[test]
fn a_refusal_says_where() {
    assert_eq!(Where::compile("predicate.a ; 1").expect_err("refused").at, 12);
}

#[test]
fn what_it_may_cost_is_bounded() {
    let many: Vec<u32> = (0..3000).collect();
    let predicate = json!({"a": many, "b": many, "text": "x".repeat(20_000), "c": vec![many.clone(); 2]});
    for text in [
        "predicate.a.all(x, x in predicate.b)",
        "predicate.a.exists(x, predicate.text.contains('y'))",
        "predicate.a.exists(x, predicate.text.matches('y'))",
        "predicate.a.all(x, predicate.text == predicate.text)",
        "predicate.a.all(x, predicate.c == predicate.c)",
    ] {
        assert_eq!(holds(text, &predicate), Err(WhereFailed::TooMuch), "{text}");
    }
    assert_eq!(holds("predicate.a.all(x, x < 3000)", &predicate), Ok(true));
    assert_eq!(holds("2999 in predicate.a && predicate.text.contains('x')", &predicate), Ok(true));
    // Not even where the other side decides.
    assert!(holds("predicate.a.all(x, x in predicate.b) || true", &predicate).is_err());
}

#[test]
fn what_the_parser_says_is_one_short_line() {
    let long = format!("a '{}'", "x".repeat(4000));
    for text in ["=\n", "|\r", "predicate.a ==\n", long.as_str()] {
        let why = refused(text);
        assert!(!why.contains(char::is_control) && why.len() < 400, "{why:?}");
    }
}

#[test]
fn a_name_that_is_not_there_is_repeated_in_one_short_line() {
    let long = "p".repeat(4000);
    let why = refused(&long);
    assert!(why.contains("unknown name `ppp") && why.len() < 400, "{why:?}");
    let why = holds(&format!("predicate.{long} == 1"), &json!({})).unwrap_err().to_string();
    assert!(why.starts_with("it has no field \"ppp") && why.len() < 400, "{why:?}");
}
