//! `make simulate SEEDS=n`, `make simulate SEED=n`: plays seeds, prints what was seen.

use consign_tests::simulator::{Bug, Counts, Trace, run};

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut seeds, mut first, mut only, mut bug) = (300u64, 0u64, None, None);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--seeds" => seeds = value.parse().unwrap_or(seeds),
            "--first" => first = value.parse().unwrap_or(0),
            "--seed" => only = value.parse::<u64>().ok(),
            "--bug" => bug = value.parse::<Bug>().ok(),
            _ => {}
        }
    }
    if let Some(seed) = only {
        let report = run(seed, bug, Trace::On);
        for line in &report.trace {
            println!("{line}");
        }
        println!("{:?}\n{}", report.violation, report.counts);
        return std::process::ExitCode::from(u8::from(report.violation.is_some()));
    }
    let began = std::time::Instant::now();
    let mut counts = Counts::default();
    let mut bad = 0;
    for seed in first..first + seeds {
        let report = run(seed, bug, Trace::Off);
        counts += report.counts;
        if let Some(violation) = &report.violation {
            bad += 1;
            println!("seed {seed}: {}: {} -- {}", violation.invariant, violation.what, report.replay());
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds, {:.1}/s, {:.0} events/s, {bad} violations\n{counts}",
        seeds as f64 / took,
        counts.events as f64 / took
    );
    std::process::ExitCode::from(u8::from(bad > 0))
}
