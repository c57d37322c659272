//! Every target for a while, so that each property is held to in every run of the tests.

#![expect(clippy::unwrap_used, reason = "all of this file is tests")]

use consign_fuzz::{
    run::{Bounds, Until, run},
    targets::{ALL, Target},
};

/// No time here: the build is a slow one, and the machine busy.
const BOUNDS: Bounds = Bounds { time: None, memory: 64 << 20 };

fn holds(name: &str) {
    let target = Target::named(name).unwrap();
    let report = run(target, 1, Until::Executions(target.in_test), BOUNDS, None);
    if let Some(failure) = report.failure {
        panic!("{name}: {}\ninput: {}", failure.what, failure.input.escape_ascii());
    }
    // A fuzzer whose every input is refused for the same reason tests nothing.
    assert!(report.accepted > 0 && report.kinds > 5, "{name}: {report:?}");
    // Nor does one whose inputs are all turned away at the door.
    let missed: Vec<_> = report.reached.iter().filter(|(_, count)| *count < 3).collect();
    assert!(missed.is_empty(), "{name}: hardly anything got to {missed:?} of {:?}", report.reached);
}

macro_rules! targets {
    ($($test:ident $name:literal)*) => {
        $(#[test]
        fn $test() {
            holds($name);
        })*

        #[test]
        fn every_target_is_here() {
            let names: Vec<&str> = ALL.iter().map(|target| target.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

targets! {
    envelope "envelope"
    trust_root "trust-root"
    statement "statement"
    manifest "manifest"
    order "order"
    plan "plan"
    plan_document "plan-document"
    condition "condition"
    gate_where "where"
    config "config"
    sshsig "sshsig"
    key "key"
    token "token"
    decision "decision"
    gate "gate"
}

#[test]
fn a_seed_is_a_run() {
    let target = Target::named("statement").unwrap();
    let once = || {
        let report = run(target, 7, Until::Executions(3000), BOUNDS, None);
        (report.executions, report.accepted, report.kinds)
    };
    assert_eq!(once(), once());
}
