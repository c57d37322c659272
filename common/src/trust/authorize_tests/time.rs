//! Order in time: numbers, epochs, floors, expiry, and what a resumption is not held to.

use super::*;

fn with(number: OrderingNumber, change: impl FnOnce(&mut World)) -> Result<OrderingNumber, &'static str> {
    let mut world = world();
    world.publish(number);
    change(&mut world);
    world.ordered().map(|work| work.number).map_err(|refusal| refusal.code())
}

#[test]
fn an_older_number_than_the_highest_is_refused_and_the_same_is_not() {
    let known = |ms| move |world: &mut World| world.memory.highest = Some(at(ms));
    assert_eq!(with(at(5000), known(5000)), Ok(at(5000)), "a failed deployment may be tried again");
    assert_eq!(with(at(5001), known(5000)), Ok(at(5001)));
    assert_eq!(with(at(4999), known(5000)), Err("older"));
}

#[test]
fn an_artifact_succeeds_once_per_statement() {
    let done = |force: bool, runs: bool| {
        with(at(5000), move |world| {
            world.memory.highest = Some(at(5000));
            world.memory.succeeded = Some(at(5000));
            world.memory.good = runs.then(|| world.installed(at(5000)));
            world.order.order = OrderKind::deploy(world.digest(), force);
        })
    };
    // After a rollback: what succeeded once needs a new statement, with and without force.
    assert_eq!(done(false, false), Err("used-up"));
    assert_eq!(done(true, false), Err("used-up"));
    assert_eq!(done(true, true), Err("used-up"), "force is a second success");
    assert_eq!(done(false, true), Ok(at(5000)), "what runs already ends as a no-op");
}

#[test]
fn publishing_the_same_bytes_again_makes_a_new_statement() {
    let mut world = world();
    let old = world.signed(&world.publication(at(5000)));
    let new = world.signed(&world.publication(at(6000)));
    world.memory.highest = Some(at(5000));
    world.memory.succeeded = Some(at(5000));
    for statements in [vec![old.clone(), new.clone()], vec![new, old]] {
        world.statements = statements;
        assert_eq!(world.ordered().unwrap().number, at(6000));
    }
}

#[test]
fn a_publication_from_the_future_is_refused_and_hides_no_other() {
    let future = NOW.0 + FUTURE_MS;
    assert_eq!(with(at(future), |_| {}), Ok(at(future)));
    assert_eq!(with(at(future + 1), |_| {}), Err("far-future"));
    assert_eq!(with(at(u64::MAX), |_| {}), Err("far-future"));
    let both = |world: &mut World| world.statements.push(world.signed(&world.publication(at(u64::MAX))));
    assert_eq!(with(at(5000), both), Ok(at(5000)));
}

#[test]
fn a_clock_at_the_end_of_time_does_not_overflow() {
    let late = |world: &mut World| {
        world.now = UnixMs(u64::MAX);
        world.root.expires = UnixMs(u64::MAX);
    };
    assert_eq!(with(at(5000), late), Err("trust-root-expired"));
}

#[test]
fn an_epoch_recovers_from_a_number_out_of_a_bad_clock() {
    let stuck = |world: &mut World| world.memory.highest = Some(at(1 << 62));
    assert_eq!(with(at(5000), stuck), Err("older"));
    let raised = |world: &mut World| {
        stuck(world);
        world.root.apps.values_mut().for_each(|app| app.epoch = 2);
    };
    assert_eq!(with(at(5000), raised), Err("wrong-epoch"));
    let second = OrderingNumber { epoch: 2, ms: UnixMs(5000) };
    assert_eq!(with(second, raised), Ok(second));
    assert_eq!(with(second, |_| {}), Err("wrong-epoch"), "a publisher does not raise it by himself");
}

#[test]
fn nothing_below_the_floor_runs() {
    assert_eq!(with(at(1000), |_| {}), Ok(at(1000)));
    assert_eq!(with(at(999), |_| {}), Err("below-floor"));
}

#[test]
fn an_expired_trust_root_takes_no_deployment() {
    assert_eq!(with(at(5000), |world| world.now = UnixMs(world.root.expires.0 - 1)), Ok(at(5000)));
    assert_eq!(with(at(5000), |world| world.now = world.root.expires), Err("trust-root-expired"));
}

#[test]
fn a_resumption_is_held_to_no_rule_of_time_and_to_all_others() {
    let mut world = world();
    world.publish(at(5000));
    world.memory.highest = Some(at(9000));
    world.memory.succeeded = Some(at(5000));
    world.memory.term = 100;
    world.now = UnixMs(u64::MAX);
    assert_eq!(world.resumed().unwrap().number, at(5000));
    world.now = UnixMs(0);
    world.resumed().unwrap();

    let resumed = |change: fn(&mut World)| {
        let mut world = super::world();
        change(&mut world);
        world.resumed().expect_err("must be refused").code()
    };
    assert_eq!(resumed(|world| world.manifest.version = "2".parse().unwrap()), "manifest-digest");
    assert_eq!(resumed(|world| world.statements.clear()), "statement-missing");
    assert_eq!(resumed(|world| world.word.allowances.clear()), "app-not-allowed");
    assert_eq!(resumed(|world| world.word.environment = "staging".parse().unwrap()), "wrong-environment");
    assert_eq!(resumed(|world| world.root.revoked.push(world.digest())), "revoked");
    assert_eq!(resumed(|world| world.root.environments.clear()), "environment-unknown");
}

#[test]
fn a_resumption_goes_on_under_the_number_that_was_accepted() {
    let mut world = world();
    let far = world.signed(&world.publication(at(NOW.0 + 2 * FUTURE_MS)));
    world.statements.push(far);
    let accepted = world.ordered().unwrap().number;
    assert_eq!(accepted, at(NOW.0));
    world.memory.highest = Some(accepted);
    assert_eq!(world.resumed().unwrap().number, accepted);
}
