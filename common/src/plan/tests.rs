use std::time::Duration;

use super::*;

const WHOLE: &str = r#"
app = "shop"
keep = 3
shared = ["storage", "config/.env"]
writable = ["tmp"]
links = ["/usr/bin/python3*"]
confirm = "5m"

[params.workers]
type = "int"
default = 4

[params.password]
type = "string"
secret = true
pattern = "[a-z]+"
max_length = 20

[[step]]
name = "migrate"
run = ["bin/migrate", "--to", "latest"]
when = "changed('migrations/**')"
once = true
retry = { attempts = 3 }
timeout = "5m"
user = "shop"
env = { RAILS_ENV = "production" }
leaves = true
tty = true

[[step]]
name = "warm"
shell = "curl -s localhost | head"
on = ["return", "deploy"]
if_fails = "continue"
always = true

[[step]]
name = "activate"
activate = true

[[step]]
name = "restart"
systemd = { restart = "shop.service" }

[[step]]
name = "healthy"
http = { url = "http://127.0.0.1:8080/healthz", status = 204, within = "10s", contains = "ok" }
when = "steps.migrate.outcome != 'failed'"

[[step]]
name = "listens"
tcp = { address = "127.0.0.1:8080" }

[[step]]
name = "settle"
sleep = "500ms"
"#;

fn errors(text: &str) -> String {
    Plan::parse(text, "consign.toml").expect_err(text).to_string()
}

/// A whole plan around what a test is about.
fn with_top(line: &str) -> String {
    format!("app = \"shop\"\n{line}\n[[step]]\nname = \"activate\"\nactivate = true\n")
}

fn with_step(lines: &str) -> String {
    format!("{}[[step]]\nname = \"x\"\n{lines}\n", with_top(""))
}

#[test]
fn every_key_is_read() {
    let plan = Plan::parse(WHOLE, "consign.toml").unwrap();
    assert_eq!((plan.app.as_str(), plan.keep, plan.confirm), ("shop", 3, Some(Duration::from_secs(300))));
    assert_eq!(plan.params["workers"].default.as_deref(), Some("4"));
    assert!(plan.params["password"].secret);
    let [migrate, warm, activate, restart, healthy, listens, settle] = plan.steps.as_slice() else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(migrate.kind, Kind::Run(["bin/migrate", "--to", "latest"].map(String::from).into()));
    assert_eq!(migrate.when.as_ref().map(Condition::text), Some("changed('migrations/**')"));
    assert!(migrate.once && migrate.leaves && migrate.tty && !migrate.always);
    assert_eq!(migrate.retry, Retry::Attempts(3));
    assert_eq!(migrate.on, [Phase::Deploy]);
    assert_eq!(migrate.env["RAILS_ENV"], "production");
    assert_eq!(warm.on, [Phase::Deploy, Phase::Return]);
    assert_eq!((warm.if_fails, warm.always), (FailurePolicy::Continue, true));
    assert_eq!(warm.timeout, Duration::from_secs(600));
    assert_eq!(activate.on, [Phase::Deploy, Phase::Return]);
    assert_eq!(
        restart.kind,
        Kind::Systemd(SystemdAction { verb: SystemdVerb::Restart, unit: "shop.service".into() })
    );
    let Kind::Http(http) = &healthy.kind else { panic!("{:?}", healthy.kind) };
    assert_eq!((http.status, http.contains.as_deref()), (204, Some("ok")));
    let Kind::Tcp(tcp) = &listens.kind else { panic!("{:?}", listens.kind) };
    assert_eq!(tcp.within, Duration::from_secs(30));
    assert_eq!(settle.kind, Kind::Sleep(Duration::from_millis(500)));
}

#[test]
fn an_unknown_key_is_pointed_at_with_the_one_that_was_meant() {
    let text = with_step("run = [\"true\"]\nwhn = \"first_deploy\"");
    assert_eq!(errors(&text), "consign.toml:9:1: unknown key `whn` in a step (did you mean `when`?)");
}

#[test]
fn several_problems_come_at_once_in_the_order_of_the_file() {
    let text = with_step("run = []\ntimeout = \"5 minutes\"\ncolour = 3") + "[extra]\n";
    let found = errors(&text);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 4, "{found}");
    assert!(lines[0].starts_with("consign.toml:8:7: `run`"), "{found}");
    assert!(lines[1].starts_with("consign.toml:9:11: `timeout`"), "{found}");
    assert!(lines[2].starts_with("consign.toml:10:1: unknown key `colour`"), "{found}");
    assert!(lines[3].starts_with("consign.toml:11:2: unknown key `extra`"), "{found}");
}

#[test]
fn a_condition_is_pointed_at_inside_its_string() {
    for (line, column) in [
        ("when = \"changed('x') == 3\"", 9),
        ("when = 'first_deploy && oops'", 25),
        ("when = \"exists(\\\"a\\\") && oops\"", 26),
        ("when = \"server.labels.r == 'é' && oops\"", 35),
    ] {
        let found = errors(&with_step(&format!("run = [\"true\"]\n{line}")));
        assert!(found.starts_with(&format!("consign.toml:9:{column}: `when`")), "{line}: {found}");
    }
}

#[test]
fn what_would_harm_is_refused() {
    for (text, message) in [
        (with_top("keep = 1"), "between 2 and"),
        (with_top("shared = [\"../etc\"]"), "component"),
        (with_top("shared = [\"/etc\"]"), "relative"),
        (with_top("shared = [\"a\", \"a/b\"]"), "overlap"),
        (with_top("links = [\"usr/bin/*\"]"), "absolute"),
        (with_top("confirm = 5"), "must be a string"),
        (with_top("[params.path]\ntype = \"string\""), "would arrive as PATH"),
        (with_top("[params.consign_app]\ntype = \"string\""), "would arrive as CONSIGN_APP"),
        (with_top("[params.n]\ntype = \"int\"\ndefault = \"4\""), "not of the parameter's `type`"),
        (with_top("[params.n]\ntype = \"float\""), "unknown type"),
        (with_top("[params.n]\ntype = \"string\"\nsecret = true\ndefault = \"x\""), "no default"),
        (with_top("[params.n]\ntype = \"int\"\nsecret = true"), "a secret is a \"string\""),
        (with_top("[params.n]\ntype = \"string\"\nsecret = true\nmax_length = 20000"), "at most 16384"),
        (
            with_top("[params.n]\ntype = \"string\"\nsecret = true\ndeliver = \"stdin\""),
            "`deliver` is `stdin`",
        ),
        (with_top("[params.n]\ntype = \"string\"\ndeliver = \"file\""), "`deliver` is for a secret"),
        (
            with_top(
                "[params.n]\ntype = \"string\"\nsecret = true\ndeliver = \"file\"\n[params.n_file]\ntype = \"string\"",
            ),
            "arrives as N_FILE",
        ),
        (
            with_top("[params.n]\ntype = \"string\"\nsecret = true\ndeliver = \"file\"").replace(
                "activate = true",
                "activate = true\n[[step]]\nname = \"s\"\nshell = \"x\"\nenv = { N_FILE = \"y\" }",
            ),
            "N_FILE is a parameter",
        ),
        (with_top("[params.n]\ntype = \"string\"\npattern = \"(\""), "regular expression"),
        (with_top("[params.n]\ntype = \"string\"\npattern = \"a+\"\ndefault = \"b\""), "does not match"),
        (with_step("run = [\"true\"]\nshell = \"true\""), "one kind, not `run` and `shell`"),
        (with_step("when = \"true\""), "a step has one of"),
        (with_step("runs = [\"true\"]"), "did you mean `run`?"),
        (with_step("run = [\"true\"]\nenv = { LD_PRELOAD = \"x\" }"), "may not set LD_PRELOAD"),
        (with_step("run = [\"true\"]\nenv = { A = 1 }"), "must be a string"),
        (with_step("run = [\"true\"]\nuser = \"0\""), "login name"),
        (with_step("run = [\"true\"]\nretry = { attempts = 1 }"), "between 2 and"),
        (with_step("run = [\"true\"]\nretry = \"always\""), "\"never\" or"),
        (with_step("run = [\"true\"]\non = []"), "one phase or both"),
        (with_step("run = [\"true\"]\nif_fails = \"retrun\""), "did you mean `return`?"),
        (with_step("sleep = \"1s\"\nonce = true"), "`once` is for `run` and `shell`"),
        (with_step("run = [\"true\"]\nonce = true\non = [\"deploy\", \"return\"]"), "a return asks nobody"),
        (with_step("run = [\"true\"]\nonce = true\non = [\"return\"]"), "a return asks nobody"),
        (with_step("run = [\"true\"]\nonce = true\nalways = true"), "waits for nobody"),
        (with_step("sleep = \"1s\"\nuser = \"shop\""), "`user` is for `run` and `shell`"),
        (with_step("systemd = { restart = \"a.service\", stop = \"b.service\" }"), "one thing to one unit"),
        (with_step("systemd = { restart = \"--now\" }"), "with its suffix"),
        (with_step("http = { url = \"file:///etc/passwd\" }"), "http:// or https://"),
        (with_step("tcp = { address = \"8080\" }"), "host:port"),
        (with_step("activate = true"), "two `activate`"),
        ("app = \"shop\"\n[[step]]\nname = \"x\"\nrun = [\"true\"]".into(), "no `activate` step"),
        ("app = \"shop\"".into(), "no steps"),
        ("[[step]]\nname = \"activate\"\nactivate = true".into(), "no `app`"),
        (with_top("") + "on = [\"deploy\"]", "both phases"),
        (with_step("run = [\"true\"]\n[[step]]\nname = \"x\"\nrun = [\"true\"]"), "two steps are called"),
        (with_step("run = [\"true\"]\nrun = [\"true\"]"), "duplicate key"),
        ("app = ".into(), "not TOML"),
        (format!("app = \"shop\" #{}", "x".repeat(crate::limits::PLAN_BYTES)), "longer than"),
    ] {
        let found = errors(&text);
        assert!(found.contains(message), "expected {message:?}:\n{text}\n{found}");
    }
}

#[test]
fn a_rendered_error_shows_the_line_and_no_control_character() {
    let error = Plan::parse("app = \"\u{1b}[31m\"\n", "consign.toml").unwrap_err();
    let shown = error.render();
    assert!(shown.contains("consign.toml:1:"), "{shown}");
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
    assert!(shown.contains("?[31m"), "{shown}");
}

#[test]
fn a_plan_with_thousands_of_mistakes_is_refused_with_a_few() {
    let many = |item: &str| format!("[{}]", vec![item; 20_000].join(","));
    let params: String =
        (0..2000).map(|n| format!("[params.p{n}]\ntype = \"string\"\npattern = \"(\"\n")).collect();
    for (text, message) in [
        (with_top(&format!("shared = {}", many("\"a\""))), "more than 100 paths"),
        (with_top(&format!("writable = {}", many("\"..\""))), "more than 100 paths"),
        (with_top(&format!("links = {}", many("\"/a\""))), "more than 100 globs"),
        (with_top(&params), "more than 100 parameters"),
        (with_step(&format!("run = {}", many("1"))), "must be"),
    ] {
        let error = Plan::parse(&text, "consign.toml").unwrap_err();
        assert!(error.problems().len() <= 100, "{message}: {}", error.problems().len());
        assert!(error.to_string().contains(message), "{message}: {error}");
    }
}
