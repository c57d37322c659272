//! Many seeds, on as many threads as there are; what each comes to is the same on any.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{
    bug::Bug,
    report::{Counts, Coverage, Report},
    world::{Trace, run},
};

/// Reports of violations that are kept.
const KEPT: usize = 20;

/// What a range of seeds came to.
#[derive(Debug, Default)]
pub struct Hunt {
    pub counts: Counts,
    pub coverage: Coverage,
    /// Seeds with a violation.
    pub violations: u64,
    /// The first of them, by seed.
    pub found: Vec<Report>,
}

/// Plays these seeds. With a bug, until it is found.
pub fn hunt(seeds: std::ops::Range<u64>, bug: Option<Bug>) -> Hunt {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let hunt = Mutex::new(Hunt::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end.load(Ordering::SeqCst) {
                        return;
                    }
                    let report = run(seed, bug, Trace::Off);
                    let mut hunt = hunt.lock().unwrap_or_else(PoisonError::into_inner);
                    hunt.counts += report.counts;
                    for (what, times) in &report.coverage {
                        *hunt.coverage.entry(what.clone()).or_default() += times;
                    }
                    if report.violation.is_some() {
                        hunt.violations += 1;
                        hunt.found.push(report);
                        hunt.found.sort_by_key(|report| report.seed);
                        hunt.found.truncate(KEPT);
                        if bug.is_some() {
                            // Those before it are played to the end: the first that finds it is the answer.
                            end.fetch_min(seed, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    hunt.into_inner().unwrap_or_else(PoisonError::into_inner)
}
