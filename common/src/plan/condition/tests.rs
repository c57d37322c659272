use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    artifact::{Entry, EntryKind, Manifest, Mode},
    digest::Sha256,
    plan::{Changes, Deliver, ParamType},
};

fn params() -> BTreeMap<StepName, Param> {
    let param = |kind, secret| Param {
        kind,
        default: None,
        secret,
        pattern: None,
        max_length: 100,
        deliver: Deliver::Env,
    };
    BTreeMap::from([
        ("workers".parse().unwrap(), param(ParamType::Int, false)),
        ("mode".parse().unwrap(), param(ParamType::String, false)),
        ("dry".parse().unwrap(), param(ParamType::Bool, false)),
        ("token".parse().unwrap(), param(ParamType::String, true)),
    ])
}

fn compile(text: &str) -> Result<Condition, Vec<InvalidCondition>> {
    Condition::compile(text, &Names { params: &params(), steps: &["migrate".parse().unwrap()] })
}

fn manifest(files: &[(&str, &str)]) -> Manifest {
    let entry = |(path, content): &(&str, &str)| Entry {
        path: (*path).to_owned(),
        kind: EntryKind::File {
            mode: Mode::Plain,
            size: content.len() as u64,
            sha256: Sha256::of(content.as_bytes()),
        },
    };
    Manifest {
        format: "consign-manifest-v1".into(),
        app: "shop".parse().unwrap(),
        version: "2.0".parse().unwrap(),
        platform: None,
        plan: String::new(),
        entries: files.iter().map(entry).collect(),
    }
}

fn facts() -> Facts {
    let old = manifest(&[("app.js", "1"), ("migrations/001.sql", "a"), ("old/x", "x")]);
    let new = manifest(&[("app.js", "2"), ("lib/deep/a.js", "n"), ("migrations/001.sql", "a")]);
    Facts {
        artifact: "2.0".parse().unwrap(),
        previous: Some("1.9".parse().unwrap()),
        changes: Changes::between(Some(&old), &new),
        environment: "staging".parse().unwrap(),
        server: "web-1".parse().unwrap(),
        labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
        host: HostFacts {
            os: "debian".into(),
            arch: "x86_64".into(),
            kernel: "6.1.0".into(),
            cpus: 4,
            memory: 8 << 30,
        },
        params: BTreeMap::from([
            ("workers".parse().unwrap(), "4".to_owned()),
            ("mode".parse().unwrap(), "fast".to_owned()),
            ("dry".parse().unwrap(), "false".to_owned()),
        ]),
        outcomes: BTreeMap::from([("migrate".parse().unwrap(), "skipped".to_owned())]),
        exists: BTreeMap::from([("shared/seeded".to_owned(), true)]),
    }
}

#[test]
fn every_name_and_operator_has_its_value() {
    for (text, expected) in [
        ("changed('app.js')", true),
        ("changed('migrations/**')", false),
        ("changed('old/*')", true),
        ("changed('lib/*')", false),
        ("changed('lib/**')", true),
        ("exists('shared/seeded')", true),
        ("first_deploy", false),
        ("previous.version == '1.9' && artifact.version != previous.version", true),
        ("environment in ['staging', 'production']", true),
        ("server.name.startsWith('web-')", true),
        ("server.labels.role == 'web'", true),
        ("server.labels['role'] == \"db\"", false),
        ("server.labels.rack == ''", true),
        ("has(server.labels.rack) || 'role' in server.labels", true),
        ("facts.os == 'debian' && facts.arch.endsWith('64') && facts.kernel.contains('.1.')", true),
        ("facts.cpus >= 2 && facts.memory > 4 * 1024 * 1024 * 1024", true),
        ("params.workers - 1 == 3 && -params.workers < 0", true),
        ("params.mode.matches('^fa.t$')", true),
        ("params.dry ? false : params.mode + '!' == 'fast!'", true),
        ("steps.migrate.outcome == 'skipped'", true),
        ("!(first_deploy == true)", true),
        ("params.workers in [1, 2, 4]", true),
    ] {
        let condition = compile(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        assert_eq!(condition.evaluate(&facts()).unwrap().value, expected, "{text}");
    }
}

#[test]
fn the_record_has_the_value_of_all_that_is_named() {
    let condition = compile("first_deploy || changed('migrations/**') || params.workers > 9").unwrap();
    let evaluation = condition.evaluate(&facts()).unwrap();
    assert!(!evaluation.value);
    let expected =
        [("changed('migrations/**')", "false"), ("first_deploy", "false"), ("params.workers", "4")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(evaluation.inputs, BTreeMap::from(expected));
}

#[test]
fn with_no_previous_every_entry_is_changed() {
    let mut facts = facts();
    facts.previous = None;
    facts.changes = Changes::between(None, &manifest(&[("app.js", "1")]));
    assert!(
        compile("first_deploy && previous.version == '' && changed('app.js')")
            .unwrap()
            .evaluate(&facts)
            .unwrap()
            .value
    );
    assert!(!compile("changed('nothing')").unwrap().evaluate(&facts).unwrap().value);
}

#[test]
fn what_would_fail_on_a_server_is_found_when_compiled() {
    for (text, at, message) in [
        ("frist_deploy", 0, "unknown name"),
        ("first_deploy && env == 'x'", 16, "unknown name"),
        ("changed()", 0, "one argument"),
        ("changed('a', 'b')", 0, "one argument"),
        ("changed(environment)", 8, "string literal"),
        ("changed('x') == 3", 0, "does not apply to bool and int"),
        ("first_deploy + 1", 0, "does not apply to bool and int"),
        ("environment < 3", 0, "does not apply"),
        ("environment", 0, "`when` takes bool"),
        ("true && 1", 8, "takes bool"),
        ("params.wokers > 1", 0, "no parameter"),
        ("params.token == 'x'", 0, "secret"),
        ("steps.later.outcome == 'failed'", 0, "no earlier step"),
        ("exists('../../etc/shadow')", 7, "component"),
        ("changed('/etc/**')", 8, "relative"),
        ("changed('[')", 8, "glob"),
        ("facts.os.upper() == 'x'", 0, "unknown function"),
        ("launch('x')", 0, "unknown function"),
        ("[1, 2].all(x, x > 0)", 0, "loops"),
        ("environment in []", 15, "empty list"),
        ("1.5 > 1.0", 0, "literal"),
        ("server == 'x'", 0, "unknown name"),
        ("true ? 1 : 'x'", 0, "one type"),
    ] {
        let errors = compile(text).expect_err(text);
        assert!(errors[0].message.contains(message), "{text}: {errors:?}");
        assert_eq!(errors[0].span.start, at, "{text}: {errors:?}");
    }
    assert_eq!(compile("frist_deploy && stpes.x.outcome == ''").unwrap_err().len(), 2);
}

#[test]
fn a_hostile_text_is_refused_before_the_parser_sees_it() {
    let open = |count| format!("{}true{}", "(".repeat(count), ")".repeat(count));
    assert!(compile(&open(16)).is_ok());
    for text in [
        String::new(),
        open(17),
        open(1500),
        "!".repeat(4000) + "true",
        "[".repeat(4000),
        "true ?".repeat(600),
        "'never closed".to_owned(),
        "\"\\x00\" == ''".to_owned(),
        "true\u{0}".to_owned(),
        "r'raw' == ''é".to_owned(),
        "true".repeat(2000),
    ] {
        assert!(compile(&text).is_err(), "{}", text.chars().take(30).collect::<String>());
    }
    // As deep as the guard lets through, on the smallest stack that a thread here has.
    let nested = |text: &str| format!("{}{text}{}", "(".repeat(16), ")".repeat(16));
    let chain = nested(&("!".repeat(96) + "true"));
    let sums = nested(&(vec!["1"; 95].join("+") + " == 1"));
    let choices = nested(&("true ? true : ".repeat(48) + "true"));
    let ands = nested(&vec!["true"; 49].join("&&"));
    let dots = nested(&("a".to_owned() + &".a".repeat(256)));
    let deep = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        for text in [chain, sums, choices, ands, dots] {
            drop(compile(&text));
        }
    });
    deep.unwrap().join().unwrap();
}

#[test]
fn arithmetic_that_overflows_fails_and_does_not_wrap() {
    for text in ["params.workers / 0 == 1", "9223372036854775807 + params.workers > 0"] {
        let error = compile(text).unwrap().evaluate(&facts()).unwrap_err();
        assert!(error.contains("overflows"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z0-9_().,'\"\\[\\]!=<>&|?:+*/% \\\\-]{0,80}") {
        drop(compile(&text));
    }

    #[test]
    fn no_row_of_tokens_panics(tokens in proptest::collection::vec(prop_oneof![
        Just("("), Just(")"), Just("["), Just("]"), Just("first_deploy"), Just("."), Just("version"), Just("'x'"),
        Just("&&"), Just("||"), Just("!"), Just("?"), Just(":"), Just("in"), Just("1"), Just("-"), Just("=="),
        Just("changed"), Just("has"), Just(","), Just("true"), Just("null"), Just("all"), Just("{"), Just("\\"),
    ], 0..24)) {
        drop(compile(&tokens.join(" ")));
    }
}

#[test]
fn what_an_earlier_step_may_change_cannot_be_foreseen() {
    for (text, unforeseeable) in [
        ("changed('migrations/**') && !first_deploy && facts.cpus > 1", vec![]),
        ("first_deploy || exists('storage/seeded')", vec!["exists('storage/seeded')"]),
        (
            "steps.migrate.outcome == 'succeeded' && server.labels.role == 'web'",
            vec!["steps.migrate.outcome"],
        ),
    ] {
        assert_eq!(compile(text).unwrap().unforeseeable(), unforeseeable, "{text}");
    }
}

#[test]
fn what_the_parser_says_is_one_short_line() {
    for text in ["|\r", "=\n", "1 \n\n"] {
        for problem in compile(text).expect_err(text) {
            assert!(!problem.message.contains(char::is_control), "{:?}", problem.message);
        }
    }
}
