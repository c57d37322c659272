//! Config: who signs it, which one is in force, what approvals say of it, and what a way back runs with.

use std::collections::BTreeMap;

use super::{
    gates::{approvals, gated},
    *,
};
use crate::{
    config::Values,
    trust::{Config, ConfigValue, Separation},
};

const PARAMS: &str = "[params.workers]\ntype = \"int\"\ndefault = 4\n";
const OPEN: &str = "[params.url]\ntype = \"string\"\n";

fn values(workers: i64) -> BTreeMap<StepName, ConfigValue> {
    BTreeMap::from([("workers".parse().unwrap(), ConfigValue::Int(workers))])
}

fn text(values: &Values) -> String {
    String::from_utf8(values.to_vec()).unwrap()
}

impl World {
    fn config_of(&self, sequence: u64, values: BTreeMap<StepName, ConfigValue>) -> Statement {
        let sha256 = Sha256::of(&json::to_vec(&values));
        let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
        Statement {
            subject: Subject { name: "config".into(), sha256 },
            predicate: Predicate::Config(Config { app, environment, sequence, values }),
        }
    }

    fn configure_by(&mut self, keys: &[&SigningKey], statement: &Statement) {
        self.statements.push(Envelope::sign(STATEMENT_TYPE, statement.to_payload(), keys).to_vec());
    }

    /// By the app's publisher.
    fn configure(&mut self, sequence: u64, workers: i64) {
        let statement = self.config_of(sequence, values(workers));
        let signed = self.signed(&statement);
        self.statements.push(signed);
    }

    fn values(&self) -> Result<(u64, String), &'static str> {
        let told = |work: Work| (work.config_sequence, text(&work.config));
        self.ordered().map(told).map_err(|refusal| refusal.code())
    }
}

fn configured() -> World {
    let mut world = world();
    world.plan(&format!("{PLAN}{PARAMS}"));
    world
}

fn ran(world: &World, sequence: u64, workers: i64) -> Installed {
    let values = Values::parse(format!("{{\"workers\":{workers}}}").as_bytes()).unwrap();
    Installed { config: Some(InForce { sequence, values }), ..world.installed(at(5000)) }
}

#[test]
fn a_config_statement_stands_over_the_defaults() {
    let mut world = configured();
    assert_eq!(world.values(), Ok((0, "{\"workers\":4}".into())));
    world.configure(3, 8);
    assert_eq!(world.values(), Ok((3, "{\"workers\":8}".into())));
    world.configure(2, 16);
    assert_eq!(world.values(), Ok((3, "{\"workers\":8}".into())), "the highest sequence");
    world.configure(4, 32);
    assert_eq!(world.values(), Ok((4, "{\"workers\":32}".into())));
    assert_eq!(world.resumed().unwrap().config_sequence, 4);
}

#[test]
fn a_config_is_for_one_app_and_environment() {
    for change in [
        |config: &mut Config| config.app = "blog".parse().unwrap(),
        |config: &mut Config| config.environment = "staging".parse().unwrap(),
    ] {
        let mut world = configured();
        let mut statement = world.config_of(1, values(8));
        let Predicate::Config(config) = &mut statement.predicate else { panic!() };
        change(config);
        let signed = world.signed(&statement);
        world.statements.push(signed);
        assert_eq!(world.values(), Ok((0, "{\"workers\":4}".into())));
    }
}

#[test]
fn a_config_is_signed_by_those_who_may() {
    let mut world = configured();
    let (ops, second) = (world.person("ops", "operations"), world.person("olga", "operations"));
    let by_ops = world.config_of(1, values(8));
    world.configure_by(&[&ops], &by_ops);
    assert_eq!(world.values(), Ok((0, "{\"workers\":4}".into())), "the publishers sign it");
    let role = |world: &mut World, name: &str| {
        let name = Some(name.parse().unwrap());
        world.root.apps.values_mut().for_each(|app| app.config = name.clone());
    };
    role(&mut world, "operations");
    assert_eq!(world.values(), Ok((1, "{\"workers\":8}".into())));
    world.configure(2, 16);
    assert_eq!(world.values(), Ok((1, "{\"workers\":8}".into())), "and the publishers do not any more");
    world.root.roles.values_mut().for_each(|role| role.threshold = 2);
    assert_eq!(world.values(), Ok((0, "{\"workers\":4}".into())));
    world.configure_by(&[&second], &by_ops);
    assert_eq!(world.values(), Ok((0, "{\"workers\":4}".into())), "two envelopes are not one");
    world.configure_by(&[&ops, &second], &by_ops);
    assert_eq!(world.values(), Ok((1, "{\"workers\":8}".into())));
    role(&mut world, "nobody");
    assert_eq!(world.values(), Ok((0, "{\"workers\":4}".into())));
}

#[test]
fn a_config_that_contradicts_itself_is_refused() {
    let mut world = configured();
    let mut lie = world.config_of(1, values(8));
    lie.subject.sha256 = world.digest();
    let signed = world.signed(&lie);
    world.statements.push(signed);
    assert_eq!(world.values(), Err("config-invalid"));
    assert_eq!(
        refused(|world| {
            world.plan(&format!("{PLAN}{PARAMS}"));
            world.configure(0, 8);
        }),
        "config-invalid"
    );
    let mut world = configured();
    world.configure(2, 8);
    world.configure(2, 8);
    assert_eq!(world.values(), Ok((2, "{\"workers\":8}".into())), "the same twice is the same");
    world.configure(2, 9);
    assert_eq!(world.values(), Err("config-invalid"), "two of one sequence");
    let mut world = configured();
    world.configure(3, 8);
    world.configure(2, 9);
    world.configure(2, 10);
    world.values().unwrap();
}

#[test]
fn values_fit_the_plan() {
    let with = |params: &str, values: &str| {
        let mut world = world();
        world.plan(&format!("{PLAN}{params}"));
        let statement = world.config_of(1, serde_json::from_str(values).unwrap());
        let signed = world.signed(&statement);
        world.statements.push(signed);
        world.values()
    };
    assert_eq!(with(OPEN, "{\"url\":\"x\"}"), Ok((1, "{\"url\":\"x\"}".into())));
    assert_eq!(with(OPEN, "{}"), Err("config-invalid"));
    assert_eq!(with(OPEN, "{\"url\":1}"), Err("config-invalid"));
    assert_eq!(with(OPEN, "{\"url\":\"x\",\"other\":1}"), Err("config-invalid"));
    let secret = "[params.token]\ntype = \"string\"\nsecret = true\n";
    let commitment = format!("{{\"token\":{{\"commitment\":\"{}\"}}}}", Sha256::of(b"x"));
    assert_eq!(with(secret, &commitment), Ok((1, commitment.clone())));
    assert_eq!(with(secret, "{\"token\":\"clear\"}"), Err("config-invalid"));
    let mut world = world();
    world.plan(&format!("{PLAN}{OPEN}"));
    assert_eq!(world.values(), Err("config-invalid"), "a parameter without a default, and no config");
    assert!(world.ordered().unwrap_err().to_string().contains("url"));
}

#[test]
fn a_config_never_goes_back_and_never_goes_away() {
    let mut world = configured();
    world.memory.config_sequence = 3;
    assert_eq!(world.values(), Err("config-older"));
    assert!(world.ordered().unwrap_err().to_string().contains("no config"));
    world.configure(2, 8);
    assert_eq!(world.values(), Err("config-older"));
    assert!(world.ordered().unwrap_err().to_string().contains("config 2"));
    assert_eq!(world.resumed().map(|work| work.config_sequence), Ok(2), "but for what was accepted");
    world.configure(3, 8);
    assert_eq!(world.values(), Ok((3, "{\"workers\":8}".into())));
    world.configure(4, 8);
    assert_eq!(world.values(), Ok((4, "{\"workers\":8}".into())));
}

#[test]
fn an_approval_covers_the_config_that_is_in_force() {
    let (mut world, alice, anna) = gated();
    world.plan(&format!("{PLAN}{PARAMS}"));
    let digest = |workers: i64| Sha256::of(format!("{{\"workers\":{workers}}}").as_bytes());
    world.approve(&alice, |_| {});
    world.ordered().unwrap();
    world.configure(1, 8);
    assert_eq!(world.code(), "config-not-approved", "one that says nothing of it covers none");
    assert!(world.ordered().unwrap_err().to_string().contains("no config"));
    world.approve(&anna, |it| it.config_sha256 = Some(digest(4)));
    assert_eq!(world.code(), "config-not-approved");
    world.approve(&anna, |it| it.config_sha256 = Some(digest(8)));
    world.ordered().unwrap();
    // Another one, signed later: what was approved is not what would run.
    world.configure(2, 9);
    assert_eq!(world.code(), "config-not-approved");
    // Approved without a config statement: the defaults, by their digest or in silence.
    world.plan(&format!("{PLAN}{PARAMS}"));
    world.approve(&alice, |it| it.config_sha256 = Some(digest(4)));
    world.ordered().unwrap();
    world.statements.pop();
    world.approve(&alice, |it| it.config_sha256 = Some(digest(8)));
    assert_eq!(world.code(), "config-not-approved");
}

#[test]
fn what_runs_with_another_config_is_no_second_success() {
    let mut world = configured();
    world.publish(at(5000));
    world.memory.highest = Some(at(5000));
    world.memory.succeeded = Some(at(5000));
    world.memory.good = Some(ran(&world, 1, 8));
    world.memory.config_sequence = 1;
    world.configure(1, 8);
    world.ordered().unwrap();
    let force = |world: &mut World| {
        let OrderKind::Deploy { force, .. } = &mut world.order.order else { panic!() };
        *force = true;
    };
    let as_it_runs = world.ordered().unwrap();
    assert!(world.memory.good.as_ref().unwrap().is_as(&as_it_runs), "a no-op");
    world.configure(2, 16);
    let other = world.ordered().unwrap();
    assert!(!world.memory.good.as_ref().unwrap().is_as(&other), "there is something to do");
    // The order before came with it, too, and failed: it may be tried again.
    world.memory.config_sequence = 2;
    world.ordered().unwrap();
    force(&mut world);
    world.ordered().unwrap();
    // The same values under another sequence are nothing new.
    world.statements.pop();
    world.configure(2, 8);
    assert_eq!(world.values(), Err("used-up"), "it is forced");
    world.publish(at(5000));
    world.configure(2, 8);
    world.values().unwrap();
    // Other values under the sequence that it runs with are no newer config.
    world.publish(at(5000));
    world.memory.config_sequence = 1;
    world.configure(1, 9);
    assert_eq!(world.values(), Err("used-up"));
}

#[test]
fn what_was_rolled_back_needs_a_new_statement_also_with_a_new_config() {
    let mut world = configured();
    world.publish(at(5000));
    world.memory.highest = Some(at(5000));
    world.memory.succeeded = Some(at(5000));
    world.memory.good = Some(Installed { manifest: Sha256::of(b"older"), ..ran(&world, 1, 8) });
    world.configure(2, 16);
    assert_eq!(world.values(), Err("used-up"));
}

#[test]
fn an_artifact_of_before_there_was_config_ran_with_its_defaults() {
    let mut world = configured();
    world.publish(at(5000));
    world.memory.highest = Some(at(5000));
    world.memory.succeeded = Some(at(5000));
    world.memory.good = Some(world.installed(at(5000)));
    let work = world.ordered().unwrap();
    assert!(world.memory.good.as_ref().unwrap().is_as(&work));
    world.configure(1, 4);
    let work = world.ordered().unwrap();
    assert!(world.memory.good.as_ref().unwrap().is_as(&work), "the same values, written out");
    world.statements.pop();
    world.configure(1, 5);
    let work = world.ordered().unwrap();
    assert!(!world.memory.good.as_ref().unwrap().is_as(&work));
    let another = Installed { manifest: Sha256::of(b"x"), ..world.installed(at(5000)) };
    assert!(!another.is_as(&work));
    // One whose plan cannot run without a config cannot have run without one.
    world.plan(&format!("{PLAN}{OPEN}"));
    let statement = world.config_of(1, serde_json::from_str("{\"url\":\"x\"}").unwrap());
    let signed = world.signed(&statement);
    world.statements.push(signed);
    let url = world.installed(at(5000));
    world.memory = Memory { good: Some(url.clone()), succeeded: Some(at(NOW.0)), ..Memory::default() };
    assert_eq!(world.values(), Err("used-up"));
    world.memory.succeeded = None;
    assert!(!url.is_as(&world.ordered().unwrap()));
}

#[test]
fn a_way_back_runs_with_what_it_ran_with() {
    let mut world = configured();
    world.memory.before = Some(ran(&world, 3, 8));
    world.memory.config_sequence = 9;
    world.order.order = OrderKind::back(world.digest(), "rollback");
    world.statements.clear();
    assert_eq!(world.values(), Ok((3, "{\"workers\":8}".into())));
    world.memory.good = world.memory.before.take();
    let work = world.decide(Intent::AutomaticReturn).unwrap();
    assert_eq!((work.config_sequence, text(&work.config)), (3, "{\"workers\":8}".into()));
    world.memory.good = Some(world.installed(at(5000)));
    let work = world.decide(Intent::AutomaticReturn).unwrap();
    assert_eq!((work.config_sequence, text(&work.config)), (0, "{\"workers\":4}".into()));
    world.plan(&format!("{PLAN}{OPEN}"));
    world.memory.good = Some(world.installed(at(5000)));
    assert_eq!(world.decide(Intent::AutomaticReturn).unwrap_err().code(), "config-invalid");
}

#[test]
fn where_people_sign_a_new_config_needs_them_too() {
    let (mut world, alice, _) = gated();
    world.gate(vec![approvals(1)], vec![], Separation::None);
    world.plan(&format!("{PLAN}{PARAMS}"));
    world.configure(1, 8);
    let digest = Sha256::of(b"{\"workers\":8}");
    world.approve(&alice, |it| {
        it.number = at(5000);
        it.config_sha256 = Some(digest);
    });
    assert_eq!(world.number(), Ok(5000));
    world.memory.highest = Some(at(5000));
    world.memory.succeeded = Some(at(5000));
    world.memory.good = Some(ran(&world, 1, 8));
    world.memory.config_sequence = 1;
    world.configure(2, 9);
    assert_eq!(world.number(), Err("config-not-approved"));
    let digest = Sha256::of(b"{\"workers\":9}");
    world.approve(&alice, |it| {
        it.number = at(4000);
        it.config_sha256 = Some(digest);
    });
    assert_eq!(world.number(), Err("older"));
    world.approve(&alice, |it| {
        it.number = at(6000);
        it.config_sha256 = Some(digest);
    });
    assert_eq!(world.number(), Ok(6000));
}
