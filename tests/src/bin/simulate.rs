//! `make simulate`: plays seeds and prints what was seen; one seed with its trace; or the table of planted bugs.

use std::{process::ExitCode, time::Instant};

use consign_tests::simulator::{Bug, Hunt, Report, Trace, hunt, run};

const USAGE: &str = "simulate [--seeds N] [--first N] [--bug NAME] | --seed N [--bug NAME] | --bugs";

#[derive(Default)]
struct Arguments {
    seeds: Option<u64>,
    first: u64,
    seed: Option<u64>,
    bug: Option<Bug>,
    bugs: Option<()>,
}

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match arguments {
        Arguments { bugs: Some(()), .. } => table(),
        Arguments { seed: Some(seed), bug, .. } => replay(seed, bug),
        Arguments { seeds, first, bug, .. } => many(first, seeds.unwrap_or(300), bug),
    }
}

fn parse() -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        if name == "--bugs" {
            arguments.bugs = Some(());
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{name} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
        match name.as_str() {
            "--seeds" => arguments.seeds = Some(number()?),
            "--first" => arguments.first = number()?,
            "--seed" => arguments.seed = Some(number()?),
            "--bug" => arguments.bug = Some(value.parse()?),
            _ => return Err(format!("what is {name}?")),
        }
    }
    Ok(arguments)
}

fn replay(seed: u64, bug: Option<Bug>) -> ExitCode {
    let report = run(seed, bug, Trace::On);
    for line in &report.trace {
        println!("{line}");
    }
    println!("\nseed {seed}, fingerprint {:016x}\n{}", report.fingerprint, report.counts);
    tell(&report);
    ExitCode::from(u8::from(report.violation.is_some()))
}

fn tell(report: &Report) {
    match &report.violation {
        Some(violation) => println!(
            "seed {}: {} violated after {:.3} s: {}\n    {}",
            report.seed,
            violation.invariant,
            violation.at as f64 / 1000.0,
            violation.what,
            report.replay()
        ),
        None => println!("seed {}: no violation", report.seed),
    }
}

fn many(first: u64, seeds: u64, bug: Option<Bug>) -> ExitCode {
    let began = Instant::now();
    let Hunt { counts, coverage, violations, found } = hunt(first..first.saturating_add(seeds), bug);
    let took = began.elapsed().as_secs_f64();
    found.iter().for_each(tell);
    println!(
        "seeds             {:>12}   seeds/s           {:>12.1}",
        counts.seeds,
        counts.seeds as f64 / took
    );
    println!("violations        {violations:>12}   events/s          {:>12.0}", counts.events as f64 / took);
    println!("{counts}");
    for (what, times) in &coverage {
        println!("{times:>10}  {what}");
    }
    ExitCode::from(u8::from(violations > 0))
}

/// Every planted bug, and the seeds that it took to find it.
fn table() -> ExitCode {
    let mut missed = 0;
    println!("| bug | what is wrong | found by | seeds | within |\n|---|---|---|---|---|");
    for bug in Bug::ALL {
        let found = hunt(0..bug.within(), Some(*bug)).found.into_iter().next();
        let by = found.as_ref().and_then(|report| report.violation.as_ref());
        let (by, seeds) = match (&found, by) {
            (Some(report), Some(violation)) => (violation.invariant, (report.seed + 1).to_string()),
            _ => {
                missed += 1;
                ("-", "not found".to_owned())
            }
        };
        println!("| `{bug}` | {} | {by} | {seeds} | {} |", bug.about(), bug.within());
    }
    ExitCode::from(u8::from(missed > 0))
}
