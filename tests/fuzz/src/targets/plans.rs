//! Plans, what they are written in, and what is computed from them.

use std::{collections::BTreeMap, sync::LazyLock};

use consign_common::{
    config::{Values, effective},
    digest::Sha256,
    json,
    limits::{CONDITION_BYTES, PLAN_BYTES, PLAN_DOCUMENT_BYTES, STEPS, VALUES_BYTES},
    name::StepName,
    plan::{Changes, Condition, Evaluation, Facts, HostFacts, Kind, Plan, condition::Names},
    trust::{ConfigValue, PlanDocument, Planned, PlannedStep, Statement, condition::Where},
};
use serde_json::{Value, json};

use super::{JSON_WORDS, Seen, Target, must, reached, refused, size, world::name};

pub(super) const PLAN: Target = Target {
    name: "plan",
    about: "`consign.toml`: what is accepted is within its limits, and can be evaluated, given values and shown; what is not \
            says where",
    golden: &["plan.toml"],
    more: plans,
    words: &[
        "app",
        "shop",
        "keep",
        "shared",
        "writable",
        "links",
        "confirm",
        "\"5m\"",
        "[params.a]",
        "type",
        "\"int\"",
        "\"bool\"",
        "\"string\"",
        "default",
        "pattern",
        "max_length",
        "secret",
        "deliver",
        "\"env\"",
        "\"file\"",
        "[[step]]",
        "name",
        "run",
        "[\"a\"]",
        "shell",
        "activate",
        "true",
        "systemd",
        "{ restart = \"shop.service\" }",
        "sleep",
        "\"1s\"",
        "tcp",
        "http",
        "when",
        "\"first_deploy\"",
        "once",
        "retry",
        "\"never\"",
        "{ attempts = 3 }",
        "timeout",
        "user",
        "env",
        "tty",
        "leaves",
        "on",
        "[\"deploy\", \"return\"]",
        "if_fails",
        "\"stop\"",
        "\"continue\"",
        "always",
        "=",
        "\"\"\"",
        "'''",
        "[",
        "]",
        "{",
        "}",
        "[a.b.c]",
        "0x10",
        "1_000",
        "1979-05-27",
        "inf",
        "\"../x\"",
        "\"/etc\"",
        "\"(a*)*$\"",
        "\"\\u0000\"",
        "\"\\u001b\"",
        "\u{202e}",
        "\"a{1000}{1000}\"",
        "\"99999999999999h\"",
        "LD_PRELOAD",
        "\"**\"",
    ],
    most_bytes: 32 << 10,
    stages: &["text", "read", "given values", "evaluated"],
    in_test: 2_000,
    check: plan,
};

const SMALL: &str = "app = \"shop\"\n[[step]]\nname = \"activate\"\nactivate = true\n";

fn plans() -> Vec<Vec<u8>> {
    let steps = [
        "run = [\"a\"]\nwhen = \"changed('x/**') || params.a == 'b'\"\n",
        "shell = \"a\"\nenv = { A = \"1\" }\n",
        "sleep = \"1s\"\nretry = { attempts = 2 }\n",
        "systemd = { start = \"a.service\" }\nalways = true\n",
    ];
    let with = |step: &&str| {
        format!("{SMALL}[[step]]\nname = \"x\"\n{step}[params.a]\ntype = \"string\"\ndefault = \"b\"\n")
    };
    let mut seeds = vec![SMALL.as_bytes().to_vec()];
    seeds.extend(steps.iter().map(|step| with(step).into_bytes()));
    seeds
}

fn plan(bytes: &[u8]) -> Result<Seen, String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(Seen::Refused("not UTF-8".into())) };
    reached("text");
    let plan = match Plan::parse(text, "consign.toml") {
        Ok(plan) => plan,
        Err(error) => {
            must(!error.problems().is_empty(), || "refused, and nothing is wrong".into())?;
            let lines = text.split('\n').count();
            for problem in error.problems() {
                must((1..=lines).contains(&problem.line), || "a problem beyond the end of the file".into())?;
                super::is_harmless(&problem.message)?;
            }
            let shown = error.render();
            must(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\u{1b}'), || {
                "a control character reaches the terminal".into()
            })?;
            return Ok(Seen::Refused(error.problems()[0].message.clone()));
        }
    };
    reached("read");
    must(text.len() <= PLAN_BYTES && plan.steps.len() <= STEPS, || "beyond a limit".into())?;
    let mut names: Vec<_> = plan.steps.iter().map(|step| &step.name).collect();
    names.sort();
    names.dedup();
    must(names.len() == plan.steps.len(), || "two steps of one name".into())?;
    let activates = plan.steps.iter().filter(|step| step.kind == Kind::Activate).count();
    must(activates == 1, || format!("{activates} times `activate`"))?;
    must(Plan::parse(text, "consign.toml").is_ok_and(|again| again == plan), || {
        "it is read in two ways".into()
    })?;

    let values = values(&plan)?;
    if values.iter().next().is_some() {
        reached("given values");
    }
    let mut shape = format!("{} {}", size(plan.steps.len()), size(plan.params.len()));
    for (index, step) in plan.steps.iter().enumerate() {
        if let Some(when) = &step.when {
            let earlier: Vec<_> = plan.steps[..index].iter().map(|step| step.name.clone()).collect();
            if evaluated(when, &facts(when, values.plain(), &earlier))?.is_ok() {
                reached("evaluated");
            }
            shape.push_str(" when");
        }
    }
    planned(&plan)?;
    Ok(Seen::Accepted(shape))
}

/// Of each parameter its default; those that have none get what their type allows, if it does.
fn values(plan: &Plan) -> Result<Values, String> {
    let mut given = BTreeMap::new();
    for (name, param) in plan.params.iter().filter(|(_, param)| param.default.is_none()) {
        let value = match (param.secret, param.kind.as_str()) {
            (true, _) => json!({"commitment": Sha256::of(b"a").to_string()}),
            (false, "int") => json!(1),
            (false, "bool") => json!(true),
            (false, _) => json!("a"),
        };
        let value: ConfigValue = serde_json::from_value(value).map_err(|error| error.to_string())?;
        given.insert(name.clone(), value);
    }
    match effective(plan, Some(&given)) {
        Ok(values) => {
            must(values.iter().map(|(name, _)| name).eq(plan.params.keys()), || {
                "a parameter has no value".into()
            })?;
            Ok(values)
        }
        // A pattern or a length that the value does not fit.
        Err(error) => {
            is_one_line(&error.to_string())?;
            Ok(Values::default())
        }
    }
}

fn is_one_line(text: &str) -> Result<(), String> {
    super::is_harmless(text)
}

fn facts(condition: &Condition, params: BTreeMap<StepName, String>, earlier: &[StepName]) -> Facts {
    Facts {
        artifact: name("1.2.0"),
        previous: Some(name("1.1.9")),
        changes: Changes::between(None, &MANIFEST),
        environment: name("production"),
        server: name("web-1"),
        labels: BTreeMap::from([("role".into(), "web".into())]),
        host: HostFacts {
            os: "debian".into(),
            arch: "x86_64".into(),
            kernel: "6.1".into(),
            cpus: 2,
            memory: 1 << 30,
        },
        params,
        outcomes: earlier.iter().map(|step| (step.clone(), "succeeded".to_owned())).collect(),
        exists: condition
            .paths()
            .into_iter()
            .map(|path| (path.to_owned(), path.len().is_multiple_of(2)))
            .collect(),
    }
}

static MANIFEST: LazyLock<consign_common::artifact::Manifest> =
    LazyLock::new(|| serde_json::from_slice(&super::golden("manifest.golden")).unwrap());

fn evaluated(condition: &Condition, facts: &Facts) -> Result<Result<Evaluation, String>, String> {
    let one = condition.evaluate(facts);
    must(one == condition.evaluate(facts), || "it comes out in two ways".into())?;
    if let Err(why) = &one {
        is_one_line(why)?;
    }
    Ok(one)
}

/// Its plan document is read again, and binds.
fn planned(plan: &Plan) -> Result<(), String> {
    let kinds = [PlannedStep::Run, PlannedStep::Skip, PlannedStep::Undetermined];
    let steps =
        plan.steps.iter().zip(kinds.into_iter().cycle()).map(|(step, kind)| (step.name.clone(), kind));
    let document = PlanDocument {
        artifact: Sha256::of(b"a"),
        config: None,
        servers: BTreeMap::from([
            (name("web-1"), Planned::Steps(steps.collect())),
            (name("web-2"), Planned::NoOp),
        ]),
    };
    must(PlanDocument::parse(&document.to_vec()).as_ref() == Ok(&document), || {
        "its plan document is another".into()
    })?;
    let pinned =
        |server: &str| document.pinned(&name(server), plan).map(|pinned| pinned.map(|steps| steps.len()));
    must(pinned("web-2") == Ok(Some(plan.steps.len())), || "a no-op does not bind all steps".into())?;
    let foreseen = plan.steps.len() - plan.steps.len() / 3;
    must(pinned("web-1") == Ok(Some(foreseen)) && pinned("web-3") == Ok(None), || {
        "it binds other steps".into()
    })
}

pub(super) const PLAN_DOCUMENT: Target = Target {
    name: "plan-document",
    about: "plan documents: accepted in one form as bytes",
    golden: &[],
    more: || {
        vec![
        format!("consign-plan-v1\nartifact {0}\nconfig none\nweb-1 one run\nweb-1 activate undetermined\nweb-2 no-op\n", Sha256::of(b"a")).into_bytes(),
        format!("consign-plan-v1\nartifact {0}\nconfig {0}\nweb-3 one skip\n", Sha256::of(b"a")).into_bytes(),
    ]
    },
    words: &[
        "consign-plan-v1",
        "artifact",
        "config",
        "none",
        "no-op",
        "run",
        "skip",
        "undetermined",
        "web-1",
        "web-2",
        "one",
        "activate",
        " ",
        "\n",
    ],
    most_bytes: 64 << 10,
    stages: &["headed", "read"],
    in_test: 20_000,
    check: plan_document,
};

fn plan_document(bytes: &[u8]) -> Result<Seen, String> {
    if bytes.starts_with(b"consign-plan-v1\nartifact ") {
        reached("headed");
    }
    match PlanDocument::parse(bytes) {
        Ok(document) => {
            reached("read");
            must(document.to_vec() == bytes && document.digest() == Sha256::of(bytes), || {
                "a second form".into()
            })?;
            must(bytes.len() <= PLAN_DOCUMENT_BYTES, || "longer than the limit".into())?;
            let no_ops = document.servers.values().filter(|planned| **planned == Planned::NoOp).count();
            Ok(Seen::Accepted(format!("{} {}", size(document.servers.len()), size(no_ops))))
        }
        Err(refusal) => refused(&refusal),
    }
}

const CEL_WORDS: &[&str] = &[
    "predicate",
    "changed('a/**')",
    "exists('a')",
    "first_deploy",
    "previous.version",
    "artifact.version",
    "environment",
    "server.name",
    "labels.role",
    "labels['role']",
    "'role' in labels",
    "has(labels.role)",
    "facts.os",
    "facts.cpus",
    "facts.memory",
    "params.workers",
    "params.greeting",
    "params.debug",
    "steps.one.outcome",
    "== 'succeeded'",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "!",
    "(",
    ")",
    "? true : false",
    "in ['a', 'b']",
    "matches('^a')",
    ".matches('(a*)*$')",
    ".startsWith('a')",
    ".endsWith('a')",
    ".contains('a')",
    "size(predicate)",
    "predicate.all(x, x == x)",
    "predicate.exists(x, x > 1)",
    "predicate.map(x, x)",
    "has(predicate.a.b)",
    "predicate['a'][0]",
    "[0]",
    "9223372036854775807",
    "-9223372036854775808",
    "1u",
    "1.5",
    "1e400",
    "'\\u0000'",
    "b'a'",
    "r'a'",
    "\"\"\"a\"\"\"",
    "null",
    "true",
    "+ 1",
    "- 1",
    "* 2",
    "/ 0",
    "% 0",
    "int('1')",
    "string(1)",
    "duration('1s')",
    "timestamp('a')",
    "type(1)",
    "dyn(1)",
    "a.b.c.d",
    "{'a': 1}",
    "[1, 2]",
];

pub(super) const CONDITION: Target = Target {
    name: "condition",
    about: "conditions of steps (`when`): what compiles comes to yes or no over any facts, the same each time",
    golden: &[],
    more: || {
        [
            "changed('migrations/**') && !first_deploy",
            "steps.one.outcome == 'failed'",
            "facts.cpus > 2 && facts.os == 'debian'",
            "'role' in labels && labels.role == 'web'",
            "params.workers + 1 < 10 || params.debug",
            "environment in ['a', 'production']",
            "params.greeting.startsWith('h') || exists('a/b')",
            "previous.version != artifact.version",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    words: CEL_WORDS,
    most_bytes: CONDITION_BYTES + 100,
    stages: &["text", "compiled", "yes or no"],
    in_test: 5_000,
    check: condition,
};

static GOLDEN: LazyLock<Plan> = LazyLock::new(|| {
    let text = String::from_utf8(super::golden("plan.toml")).unwrap();
    Plan::parse(&text, "consign.toml").unwrap()
});

fn condition(bytes: &[u8]) -> Result<Seen, String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(Seen::Refused("not UTF-8".into())) };
    reached("text");
    let steps = [name("one")];
    let condition = match Condition::compile(text, &Names { params: &GOLDEN.params, steps: &steps }) {
        Ok(condition) => condition,
        Err(problems) => {
            let Some(first) = problems.first() else { return Err("refused, and nothing is wrong".into()) };
            for problem in &problems {
                let span = &problem.span;
                must(span.start <= span.end && text.get(span.clone()).is_some(), || {
                    format!("a problem at {span:?} of {} bytes", text.len())
                })?;
                is_one_line(&problem.message)?;
            }
            return Ok(Seen::Refused(first.message.clone()));
        }
    };
    reached("compiled");
    must(text.len() <= CONDITION_BYTES, || "longer than the limit".into())?;
    let params = [("workers", "4"), ("greeting", "hello"), ("debug", "false")]
        .map(|(key, value)| (name(key), value.to_owned()));
    let known = facts(&condition, BTreeMap::from(params), &steps);
    let one = evaluated(&condition, &known)?;
    let other = Facts { previous: None, outcomes: BTreeMap::new(), labels: BTreeMap::new(), ..known };
    let other = evaluated(&condition, &other)?;
    if one.is_ok() && other.is_ok() {
        reached("yes or no");
    }
    let shape = |evaluation: Result<Evaluation, String>| match evaluation {
        Ok(evaluation) => format!("{} of {}", evaluation.value, size(evaluation.inputs.len())),
        Err(why) => why,
    };
    Ok(Seen::Accepted(format!("{}, {}", shape(one), shape(other))))
}

pub(super) const WHERE: Target = Target {
    name: "where",
    about: "`where` of gates: what compiles comes to yes, no or a reason over any predicate, within its cost",
    golden: &[],
    more: || {
        [
            "predicate.result == 'PASSED'",
            "has(predicate.a) && predicate.a.b > 1",
            "predicate.list.all(x, x.ok == true)",
            "predicate.list.exists(x, x.name.matches('^a+$'))",
            "size(predicate.list) >= 2 ? predicate.n < 5 : false",
            "'a' in predicate.tags || predicate['tags'][0] == 'b'",
            "predicate.text.contains('x') && !predicate.text.endsWith('y')",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    words: CEL_WORDS,
    most_bytes: CONDITION_BYTES + 100,
    stages: &["text", "compiled", "yes or no"],
    in_test: 5_000,
    check: gate_where,
};

static PREDICATES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let statements = [
        "statement-approval.json",
        "statement-config.json",
        "statement-decision.json",
        "statement-test-result.json",
    ];
    let mut predicates: Vec<Value> = statements
        .iter()
        .map(|file| Statement::parse(&super::golden(file)).unwrap().predicate.to_value())
        .collect();
    predicates.extend([
        Value::Null,
        json!([1, 2, 3]),
        json!("text"),
        json!({"result": "PASSED", "n": 4, "f": 1.5, "tags": ["a", "b"], "text": "xyx", "a": {"b": 2}}),
        json!({"list": vec![json!({"ok": true, "name": "aaaa"}); 200]}),
        json!({"list": [[[[1]]], "a", null, -1, u64::MAX], "text": "a".repeat(20_000)}),
    ]);
    predicates
});

fn gate_where(bytes: &[u8]) -> Result<Seen, String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(Seen::Refused("not UTF-8".into())) };
    reached("text");
    let condition = match Where::compile(text) {
        Ok(condition) => condition,
        Err(error) => return refused(&error),
    };
    reached("compiled");
    let mut shape = String::new();
    for predicate in PREDICATES.iter() {
        let holds = condition.holds(predicate);
        must(holds == condition.holds(predicate), || "it comes out in two ways".into())?;
        match holds {
            Ok(holds) => {
                reached("yes or no");
                shape.push(if holds { 'y' } else { 'n' });
            }
            Err(failed) => {
                refused(&failed)?;
                shape.push('-');
            }
        }
    }
    Ok(Seen::Accepted(shape))
}

pub(super) const CONFIG: Target = Target {
    name: "config",
    about: "values of parameters: every one has its declared type, none is left over, and the digest has one document",
    golden: &[],
    more: || {
        vec![
        br#"{"debug":true,"greeting":"abc","token":{"commitment":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"workers":8}"#.to_vec(),
        br#"{"token":{"commitment":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}"#.to_vec(),
        b"{}".to_vec(),
    ]
    },
    words: JSON_WORDS,
    most_bytes: 32 << 10,
    stages: &["JSON", "values", "fits the plan"],
    in_test: 20_000,
    check: config,
};

fn config(bytes: &[u8]) -> Result<Seen, String> {
    if let Ok(values) = Values::parse(bytes) {
        let written = values.to_vec();
        must(Values::parse(&written).as_ref() == Ok(&values), || {
            "it is not read again as what it was".into()
        })?;
        must(Sha256::of(&written) == values.digest(), || "the digest is not that of its document".into())?;
    }
    if super::is_json(bytes) {
        reached("JSON");
    }
    let given: BTreeMap<StepName, ConfigValue> = match json::from_slice_exact(bytes, VALUES_BYTES) {
        Ok(given) => given,
        Err(error) => return refused(&error),
    };
    reached("values");
    let values = match effective(&GOLDEN, Some(&given)) {
        Ok(values) => values,
        Err(error) => return refused(&error),
    };
    reached("fits the plan");
    must(values.iter().map(|(name, _)| name).eq(GOLDEN.params.keys()), || {
        "not the plan's parameters".into()
    })?;
    for (name, value) in &given {
        must(values.get(name.as_str()) == Some(value), || format!("{name} has another value"))?;
    }
    for (name, text) in values.plain() {
        let param = GOLDEN.params.get(&name).ok_or("a value of nothing")?;
        must(!param.secret, || "a secret in clear".into())?;
        must(param.check(&text).is_ok(), || format!("{name} is {text:?}"))?;
    }
    let again: BTreeMap<_, _> = values.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    must(effective(&GOLDEN, Some(&again)).as_ref() == Ok(&values), || "given again it is another".into())?;
    must(Values::parse(&values.to_vec()).as_ref() == Ok(&values), || {
        "it is not read as it is written".into()
    })?;
    Ok(Seen::Accepted(format!("{} given", given.len())))
}
