//! The plan document: what was shown, what was approved, and what binds.

use std::collections::BTreeMap;

use super::{gates::gated, *};
use crate::trust::{Foreseen, PlanDocument, Planned, PlannedStep};

impl World {
    /// What a preview of the world's artifact said of its server.
    fn shown(&self, first: PlannedStep) -> PlanDocument {
        let steps =
            [("migrate", first), ("activate", PlannedStep::Run), ("restart", PlannedStep::Undetermined)];
        let steps = steps.map(|(name, step)| (name.parse().unwrap(), step)).into();
        let servers = BTreeMap::from([("web-1".parse().unwrap(), Planned::Steps(steps))]);
        PlanDocument { artifact: self.digest(), config: None, servers }
    }

    fn pinned(&self) -> Result<Vec<(String, Foreseen)>, &'static str> {
        let told = |work: Work| work.pinned.into_iter().map(|(step, it)| (step.to_string(), it)).collect();
        self.ordered().map(told).map_err(|refusal| refusal.code())
    }
}

fn foreseen(of: &[(&str, Foreseen)]) -> Vec<(String, Foreseen)> {
    of.iter().map(|(step, it)| ((*step).to_owned(), *it)).collect()
}

#[test]
fn the_lines_of_this_server_bind_it() {
    let mut world = world();
    assert_eq!(world.pinned(), Ok(vec![]));
    world.document = Some(world.shown(PlannedStep::Skip).to_vec());
    let both = foreseen(&[("activate", Foreseen::Run), ("migrate", Foreseen::Skip)]);
    assert_eq!(world.pinned(), Ok(both.clone()));
    assert_eq!(world.resumed().map(|work| work.pinned.len()), Ok(2));
    let order = |world: &mut World, step: &str, it: Foreseen| {
        let OrderKind::Deploy { plan, .. } = &mut world.order.order else { panic!() };
        *plan = BTreeMap::from([(step.parse().unwrap(), it)]);
    };
    order(&mut world, "migrate", Foreseen::Skip);
    assert_eq!(world.pinned(), Ok(both), "said twice");
    order(&mut world, "migrate", Foreseen::Run);
    assert_eq!(world.pinned(), Err("malformed"), "said otherwise");
    order(&mut world, "restart", Foreseen::Run);
    assert_eq!(world.pinned().map(|it| it.len()), Ok(3), "said where the document leaves it open");
    world.document = None;
    assert_eq!(world.pinned(), Ok(foreseen(&[("restart", Foreseen::Run)])));
}

#[test]
fn a_document_about_something_else_is_refused() {
    let with = |change: fn(&mut PlanDocument)| {
        let mut world = world();
        let mut document = world.shown(PlannedStep::Run);
        change(&mut document);
        world.document = Some(document.to_vec());
        world.pinned()
    };
    with(|_| {}).unwrap();
    assert_eq!(with(|it| it.artifact = Sha256::of(b"x")), Err("plan-other"));
    assert_eq!(with(|it| it.config = Some(Sha256::of(b"{}"))), Err("plan-other"), "no config is in force");
    assert_eq!(with(|it| it.servers.clear()), Err("plan-other"), "it does not have this server");
    let short = |it: &mut PlanDocument| {
        let steps = vec![("migrate".parse().unwrap(), PlannedStep::Run)];
        it.servers.insert("web-1".parse().unwrap(), Planned::Steps(steps));
    };
    assert_eq!(with(short), Err("plan-other"));
    let nothing = with(|it| drop(it.servers.insert("web-1".parse().unwrap(), Planned::NoOp))).unwrap();
    assert!(nothing.len() == 3 && nothing.iter().all(|(_, it)| *it == Foreseen::Skip));
    let mut world = world();
    world.document = Some(b"consign-plan-v1\n".to_vec());
    assert_eq!(world.pinned(), Err("malformed"));
}

#[test]
fn a_document_names_the_config_that_is_in_force() {
    let mut world = world();
    let values = BTreeMap::new();
    let config = crate::trust::Config {
        app: "shop".parse().unwrap(),
        environment: "production".parse().unwrap(),
        sequence: 1,
        values,
    };
    let subject = Subject { name: "config".into(), sha256: Sha256::of(b"{}") };
    let statement = Statement { subject, predicate: Predicate::Config(config) };
    let signed = world.signed(&statement);
    world.statements.push(signed);
    let mut document = world.shown(PlannedStep::Run);
    world.document = Some(document.to_vec());
    assert_eq!(world.pinned(), Err("plan-other"));
    document.config = Some(Sha256::of(b"other"));
    world.document = Some(document.to_vec());
    assert_eq!(world.pinned(), Err("plan-other"));
    document.config = Some(Sha256::of(b"{}"));
    world.document = Some(document.to_vec());
    world.pinned().unwrap();
}

#[test]
fn an_approval_of_a_plan_is_one_of_that_plan_only() {
    let (mut world, alice, anna) = gated();
    let document = world.shown(PlannedStep::Run);
    world.approve(&alice, |it| it.plan_sha256 = Some(document.digest()));
    assert_eq!(world.code(), "plan-not-approved");
    assert!(world.ordered().unwrap_err().to_string().contains("none that has this server"));
    world.document = Some(world.shown(PlannedStep::Skip).to_vec());
    assert_eq!(world.code(), "plan-not-approved");
    world.document = Some(document.to_vec());
    assert_eq!(world.pinned().map(|it| it.len()), Ok(2));
    // One that says nothing of a plan leaves it open; the document that comes binds all the same.
    world.document = None;
    world.approve(&anna, |_| {});
    assert_eq!(world.pinned(), Ok(vec![]));
    world.document = Some(world.shown(PlannedStep::Skip).to_vec());
    assert_eq!(world.pinned().map(|it| it.len()), Ok(2));
}

#[test]
fn for_no_server_in_particular_a_document_need_not_have_it() {
    let (mut world, alice, _) = gated();
    let mut document = world.shown(PlannedStep::Run);
    document.servers.clear();
    document.servers.insert("web-9".parse().unwrap(), Planned::NoOp);
    world.approve(&alice, |it| it.plan_sha256 = Some(document.digest()));
    let bytes = document.to_vec();
    let case = |server| Case {
        root: &world.root,
        environment: &world.order.environment,
        digest: world.digest(),
        manifest: &world.manifest,
        statements: &world.statements,
        plan: Some(&bytes),
        server,
        arrival: Arrival::WithTheOthers,
        memory: &world.memory,
        time: Time::Now(world.now),
    };
    let reviewed = review(case(None)).unwrap();
    assert!(reviewed.assessed.is_met() && reviewed.pinned.is_empty());
    let own = review(case(Some(&world.order.server)));
    assert_eq!(own.unwrap_err().code(), "plan-other");
}
