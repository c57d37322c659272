use super::*;

fn plan(params: &str) -> Plan {
    let text = format!("app = \"shop\"\n{params}\n[[step]]\nname = \"activate\"\nactivate = true\n");
    Plan::parse(&text, "consign.toml").unwrap_or_else(|error| panic!("{error:?}"))
}

const PARAMS: &str = r#"
[params.workers]
type = "int"
default = 4
[params.debug]
type = "bool"
default = false
[params.greeting]
type = "string"
pattern = "[a-z]*"
max_length = 5
default = "hello"
"#;

const SECRET: &str = "[params.token]\ntype = \"string\"\nsecret = true\nmax_length = 5\n";

fn given(json: &str) -> BTreeMap<StepName, ConfigValue> {
    serde_json::from_str(json).unwrap()
}

fn try_values(params: &str, json: &str) -> Result<Values, InvalidConfig> {
    effective(&plan(params), Some(&given(json)))
}

fn text(values: &Values) -> String {
    String::from_utf8(values.to_vec()).unwrap()
}

fn commitment() -> String {
    format!("{{\"commitment\":\"{}\"}}", Sha256::of(b"x"))
}

#[test]
fn defaults_stand_where_nothing_is_given() {
    let by_default = effective(&plan(PARAMS), None).unwrap();
    assert_eq!(text(&by_default), r#"{"debug":false,"greeting":"hello","workers":4}"#);
    assert_eq!(try_values(PARAMS, "{}").unwrap(), by_default);
    let values = try_values(PARAMS, r#"{"workers":-8,"debug":true}"#).unwrap();
    assert_eq!(text(&values), r#"{"debug":true,"greeting":"hello","workers":-8}"#);
    assert_eq!(values.get("workers"), Some(&ConfigValue::Int(-8)));
    assert_eq!(values.get("other"), None);
    assert_eq!(values.iter().count(), 3);
}

#[test]
fn a_plan_without_parameters_has_the_empty_values() {
    let values = effective(&plan(""), None).unwrap();
    assert_eq!((text(&values).as_str(), values.digest()), ("{}", Sha256::of(b"{}")));
    assert_eq!(values, Values::default());
}

#[test]
fn the_digest_is_that_of_the_canonical_form() {
    let values = try_values(PARAMS, r#"{"workers":8}"#).unwrap();
    assert_eq!(values.digest(), Sha256::of(br#"{"debug":false,"greeting":"hello","workers":8}"#));
    // Whether a value is written out or left to its default makes no difference; another value does.
    assert_eq!(try_values(PARAMS, r#"{"workers":8,"debug":false}"#).unwrap().digest(), values.digest());
    assert_ne!(try_values(PARAMS, r#"{"workers":9}"#).unwrap().digest(), values.digest());
}

#[test]
fn reads_what_it_writes_and_no_other_form() {
    let params = format!("{PARAMS}{SECRET}");
    let values = try_values(&params, &format!("{{\"token\":{}}}", commitment())).unwrap();
    assert_eq!(Values::parse(&values.to_vec()), Ok(values));
    for other in ["[]", r#"{"a":null}"#, r#"{"a":1.5}"#, r#"{"a":{"commitment":"x"}}"#, r#"{"A":1}"#, ""] {
        assert!(Values::parse(other.as_bytes()).is_err(), "{other}");
    }
}

#[test]
fn what_the_plan_does_not_declare_is_refused() {
    let error = try_values(PARAMS, r#"{"worker":8}"#).unwrap_err();
    assert_eq!(error, InvalidConfig::Undeclared { name: "worker".parse().unwrap() });
    assert!(try_values("", r#"{"a":1}"#).is_err());
}

#[test]
fn what_has_no_value_is_refused() {
    let missing = |name: &str| InvalidConfig::Missing { name: name.parse().unwrap() };
    let open = "[params.url]\ntype = \"string\"\n";
    assert_eq!(try_values(open, "{}"), Err(missing("url")));
    assert_eq!(effective(&plan(open), None), Err(missing("url")));
    assert_eq!(text(&try_values(open, r#"{"url":""}"#).unwrap()), r#"{"url":""}"#);
    assert_eq!(effective(&plan(SECRET), None), Err(missing("token")));
    // The parser takes no such plan; a secret's default would stand in every artifact.
    let mut plan = plan(SECRET);
    if let Some(param) = plan.params.get_mut("token") {
        param.default = Some("abc".to_owned());
    }
    assert_eq!(effective(&plan, None), Err(missing("token")));
}

#[test]
fn a_value_is_of_its_parameters_own_type() {
    for (json, declared, given) in [
        (r#"{"workers":"8"}"#, "int", "string"),
        (r#"{"workers":true}"#, "int", "bool"),
        (r#"{"debug":"true"}"#, "bool", "string"),
        (r#"{"debug":1}"#, "bool", "int"),
        (r#"{"greeting":1}"#, "string", "int"),
        (r#"{"greeting":true}"#, "string", "bool"),
    ] {
        match try_values(PARAMS, json) {
            Err(InvalidConfig::WrongType { declared: d, given: g, .. }) => {
                assert_eq!((d, g), (declared, given))
            }
            other => panic!("{json}: {other:?}"),
        }
    }
}

#[test]
fn a_default_that_is_not_of_its_type_is_no_value() {
    for (kind, default) in [(ParamType::Int, "four"), (ParamType::Bool, "1")] {
        let mut plan = plan(PARAMS);
        plan.params.retain(|name, _| name.as_str() == "workers");
        plan.params.values_mut().for_each(|param| {
            param.kind = kind;
            param.default = Some(default.to_owned());
        });
        assert!(matches!(effective(&plan, None), Err(InvalidConfig::WrongType { given: "string", .. })));
    }
}

#[test]
fn a_value_keeps_to_pattern_and_length() {
    for bad in [r#"{"greeting":"UP"}"#, r#"{"greeting":"toolong"}"#, r#"{"greeting":"a\u0000"}"#] {
        assert!(matches!(try_values(PARAMS, bad), Err(InvalidConfig::Value { .. })), "{bad}");
    }
    try_values(PARAMS, r#"{"greeting":"fives"}"#).unwrap();
}

#[test]
fn a_secret_is_a_commitment_and_nothing_else_is() {
    let committed = try_values(SECRET, &format!("{{\"token\":{}}}", commitment())).unwrap();
    let expected = Commitment { commitment: Sha256::of(b"x") };
    assert_eq!(committed.commitments(), BTreeMap::from([("token".parse().unwrap(), expected)]));
    assert_eq!(committed.plain(), BTreeMap::new());

    for clear in [r#"{"token":"abc"}"#, r#"{"token":1}"#, r#"{"token":true}"#] {
        let error = try_values(SECRET, clear).unwrap_err();
        assert_eq!(error, InvalidConfig::NotCommitted { name: "token".parse().unwrap() });
        assert!(!error.to_string().contains("abc"), "a secret is not repeated");
    }
    let error = try_values(PARAMS, &format!("{{\"greeting\":{}}}", commitment())).unwrap_err();
    assert_eq!(error, InvalidConfig::NotSecret { name: "greeting".parse().unwrap() });
}

#[test]
fn steps_see_text() {
    let values = try_values(PARAMS, r#"{"workers":-8,"debug":true,"greeting":"hi"}"#).unwrap();
    let plain: Vec<_> = values.plain().into_iter().map(|(name, text)| format!("{name}={text}")).collect();
    assert_eq!(plain, ["debug=true", "greeting=hi", "workers=-8"]);
    assert_eq!(values.commitments(), BTreeMap::new());
}
