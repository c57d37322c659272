//! What happens behind every balancer while clients send requests.

use consign_tests::wait::until;

use super::{
    client::{Clients, Tally, get},
    pool::{LONG, Pool, SERVERS},
};

/// A balancer in front of a [`Pool`].
pub(super) trait Balancer {
    /// Where clients send requests.
    fn address(&self) -> &str;
    /// The servers that it gives new requests to.
    fn in_rotation(&self) -> Vec<String>;
    /// What of the example's plan is adapted to it.
    fn adapted(&self) -> Vec<(String, String)>;
}

pub(super) fn publish(
    pool: &Pool,
    balancer: &dyn Balancer,
    version: &str,
    more: &[(&str, &str)],
    files: &[(&str, &str)],
) {
    let adapted = balancer.adapted();
    let changes = adapted.iter().map(|(from, to)| (from.as_str(), to.as_str())).chain(more.iter().copied());
    pool.publish(version, &changes.collect::<Vec<_>>(), files);
}

/// The first version on both servers, behind the balancer.
pub(super) fn first(pool: &Pool, balancer: &dyn Balancer) {
    publish(pool, balancer, "1.0.0", &[], &[]);
    let ran = pool.roll_out("1.0.0");
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    for server in SERVERS {
        until("the balancer gives requests to the server", LONG, || {
            let answer = get(balancer.address(), "/");
            if answer == Ok(format!("shop 1.0.0 {server}")) { Ok(()) } else { Err(answer) }
        });
    }
    assert_eq!(balancer.in_rotation(), SERVERS);
}

/// An upgrade of one server after the other, a version that fails its health check, and a rollback that is ordered to
/// both servers at once: not one request fails.
pub(super) fn upgrade_fail_and_roll_back(pool: &Pool, balancer: &dyn Balancer) {
    first(pool, balancer);

    let clients = Clients::start(balancer.address());
    publish(pool, balancer, "2.0.0", &[], &[]);
    let upgrade = pool.roll_out("2.0.0");
    let tally = clients.stop_after("2.0.0", &SERVERS);
    told("upgrade", &tally);
    assert_eq!(upgrade.code, 0, "{}{}", upgrade.stdout, upgrade.stderr);
    assert_eq!(upgrade.stdout.matches("drained\n").count(), SERVERS.len(), "{}", upgrade.stdout);
    assert_none_failed(&tally);
    for version in ["1.0.0", "2.0.0"] {
        for server in SERVERS {
            let answer = format!("shop {version} {server}");
            assert!(tally.answered.contains_key(&answer), "{answer}: {:?}", tally.answered);
        }
    }
    assert_eq!(balancer.in_rotation(), SERVERS);

    // Drained, not healthy, back to the version before, in rotation again. The other server is never touched.
    let clients = Clients::start(balancer.address());
    publish(pool, balancer, "3.0.0", &[], &[("BROKEN", "yes")]);
    let broken = pool.roll_out("3.0.0");
    let tally = clients.stop_after("2.0.0", &SERVERS);
    told("version that is not healthy", &tally);
    assert_eq!(broken.code, 4, "{}{}", broken.stdout, broken.stderr);
    assert_eq!(SERVERS.map(|server| pool.state(server)), ["returned", "not-reached"]);
    assert_none_failed(&tally);
    assert_eq!(tally.answered.keys().collect::<Vec<_>>(), ["shop 2.0.0 web-1", "shop 2.0.0 web-2"]);
    assert_eq!(balancer.in_rotation(), SERVERS);
    assert_eq!(SERVERS.map(|server| pool.version(server)), ["2.0.0", "2.0.0"]);

    let clients = Clients::start(balancer.address());
    let rollback = pool.roll_back();
    let tally = clients.stop_after("1.0.0", &SERVERS);
    told("rollback of both at once", &tally);
    assert_eq!(rollback.code, 0, "{}{}", rollback.stdout, rollback.stderr);
    assert_none_failed(&tally);
    for server in SERVERS {
        assert_eq!(pool.version(server), "1.0.0");
        assert!(tally.answered.contains_key(&format!("shop 1.0.0 {server}")), "{:?}", tally.answered);
    }
    assert_eq!(balancer.in_rotation(), SERVERS);
}

/// A drain that does not end in time: nothing is cut off unless the plan says so.
pub(super) fn drain_that_does_not_end(pool: &Pool, balancer: &dyn Balancer) {
    let short = (
        "[params.drain_seconds]\ntype = \"int\"\ndefault = 60",
        "[params.drain_seconds]\ntype = \"int\"\ndefault = 1",
    );
    first(pool, balancer);

    let held = pool.hold(balancer.address());
    publish(pool, balancer, "2.0.0", &[short], &[]);
    let overdue = pool.roll_out("2.0.0");
    assert_eq!(overdue.code, 3, "{}{}", overdue.stdout, overdue.stderr);
    assert!(
        overdue.stdout.contains("OVERDUE") && overdue.stdout.contains("not going on"),
        "{}",
        overdue.stdout
    );
    assert_eq!(SERVERS.map(|server| pool.state(server)), ["failed", "not-reached"]);
    assert_eq!(SERVERS.map(|server| pool.version(server)), ["1.0.0", "1.0.0"]);
    assert_eq!(balancer.in_rotation(), SERVERS, "the version before is healthy and serves again");
    pool.release();
    for request in held {
        let answer = request.join().unwrap();
        assert!(answer.as_ref().is_ok_and(|answer| answer.starts_with("shop 1.0.0")), "{answer:?}");
    }

    pool.hold_again();
    let held = pool.hold(balancer.address());
    publish(pool, balancer, "2.1.0", &[short, ("default = \"fail\"", "default = \"go-on\"")], &[]);
    let cut = pool.roll_out("2.1.0");
    assert_eq!(cut.code, 0, "{}{}", cut.stdout, cut.stderr);
    assert!(cut.stdout.contains("WILL BE CUT OFF"), "{}", cut.stdout);
    for request in held {
        let answer = request.join().unwrap();
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(balancer.in_rotation(), SERVERS);
    assert_eq!(SERVERS.map(|server| pool.version(server)), ["2.1.0", "2.1.0"]);
}

/// The same app, the same clients, the same balancer, and a plan that does not drain.
pub(super) fn without_a_drain(pool: &Pool, balancer: &dyn Balancer) {
    first(pool, balancer);
    let clients = Clients::start(balancer.address());
    let no_drain = ("run = [\"bin/balancer.sh\", \"drain\"]", "run = [\"true\"]");
    publish(pool, balancer, "2.0.0", &[no_drain], &[]);
    let upgrade = pool.roll_out("2.0.0");
    let tally = clients.stop_after("2.0.0", &SERVERS);
    told("upgrade without a drain", &tally);
    assert_eq!(upgrade.code, 0, "{}{}", upgrade.stdout, upgrade.stderr);
    assert!(!tally.failed.is_empty(), "without a drain requests fail, or this suite sees nothing: {tally:?}");
}

fn told(what: &str, tally: &Tally) {
    println!("==== {what}: {} requests, {} failed; {:?}", tally.total(), tally.failed.len(), tally.answered);
}

#[track_caller]
fn assert_none_failed(tally: &Tally) {
    assert!(
        tally.failed.is_empty(),
        "{} of {} failed: {:?}",
        tally.failed.len(),
        tally.total(),
        tally.failed
    );
}
