//! The simulator: seeds that must hold, and bugs that it must find. `make simulate` plays more of them.

#![expect(clippy::unwrap_used, reason = "test code: a panic is how a test says that it failed")]

use consign_tests::simulator::{Bug, Hunt, Report, Trace, hunt, run};

/// Of every `make test`.
const SEEDS: u64 = 300;

fn told(report: &Report) -> String {
    let violation = report.violation.as_ref().unwrap();
    format!("{} violated: {}\n    {}", violation.invariant, violation.what, report.replay())
}

#[test]
fn every_seed_holds() {
    let Hunt { counts, coverage, found, .. } = hunt(0..SEEDS, None);
    println!("{counts}");
    let told: Vec<String> = found.iter().map(told).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    // What never happens is not tested.
    for what in [
        "agent starts: alone",
        "deploy: partial",
        "deploy: succeeded",
        "journal: answered done",
        "journal: answered failed",
        "journal: answered run",
        "journal: confirmed",
        "journal: decided failed",
        "journal: ended cancelled",
        "journal: ended returned",
        "journal: unconfirmed",
        "once: unknown",
        "return: succeeded",
        "server: owed",
        "server: unknown",
        "verb: decide of unknown",
        "verb: retry of stopped",
    ] {
        assert!(coverage.get(what).is_some_and(|times| *times > 0), "never seen in {SEEDS} seeds: {what}");
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..20 {
        let (one, other) = (run(seed, None, Trace::Off), run(seed, None, Trace::On));
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
        assert_eq!((one.counts, &one.coverage), (other.counts, &other.coverage), "seed {seed}");
    }
    let prints: std::collections::BTreeSet<u64> =
        (0..20).map(|seed| run(seed, None, Trace::Off).fingerprint).collect();
    assert_eq!(prints.len(), 20, "seeds differ");
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = hunt(0..bug.within(), Some(*bug)).found.into_iter().next();
        let Some(report) = found else { panic!("{bug} is not found within {} seeds", bug.within()) };
        println!("{bug}: {} seeds; {}", report.seed + 1, told(&report));
        assert!(run(report.seed, None, Trace::Off).violation.is_none(), "it is there without the bug too");
    }
}
