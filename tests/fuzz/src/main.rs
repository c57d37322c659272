//! `make fuzz`: changes inputs and has them read, for a while or a number of times; or reads one file.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use consign_fuzz::{
    run::{Bounds, DONE, Failure, Report, Until, execute, judge, run, save},
    targets::{ALL, Seen, Target},
};

const USAGE: &str =
    "fuzz TARGET|all [--seconds N | --executions N] [--seed N] | fuzz TARGET --input FILE | fuzz list";
/// Of processor time, for one input.
const TIME: Duration = Duration::from_secs(1);
/// Bytes that the reader may hold at once, for one input of at most 64 KiB.
const MEMORY: usize = 64 << 20;
/// An input that takes so long by the wall clock is stuck.
const STUCK: Duration = Duration::from_secs(120);

struct Arguments {
    targets: Vec<&'static Target>,
    until: Until,
    seed: u64,
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.first().is_some_and(|first| first == "list") {
        ALL.iter().for_each(|target| println!("{:<14} {}", target.name, target.about));
        return ExitCode::SUCCESS;
    }
    match parse(&given) {
        Ok(Arguments { targets, input: Some(path), .. }) => replay(targets, &path),
        Ok(arguments) => fuzz(&arguments),
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(given: &[String]) -> Result<Arguments, String> {
    let Some((name, options)) = given.split_first() else { return Err("which target?".into()) };
    let targets = match Target::named(name) {
        Some(target) => vec![target],
        None if name == "all" => ALL.to_vec(),
        None => return Err(format!("there is no target {name}")),
    };
    let mut arguments =
        Arguments { targets, until: Until::Over(Duration::from_secs(60)), seed: 0, input: None };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let value = options.next().ok_or_else(|| format!("{option} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{option} {value}: {error}"));
        match option.as_str() {
            "--seconds" => arguments.until = Until::Over(Duration::from_secs(number()?)),
            "--executions" => arguments.until = Until::Executions(number()?),
            "--seed" => arguments.seed = number()?,
            "--input" => arguments.input = Some(value.into()),
            _ => return Err(format!("what is {option}?")),
        }
    }
    Ok(arguments)
}

fn bounds() -> Bounds {
    Bounds { time: Some(TIME), memory: MEMORY }
}

fn fuzz(arguments: &Arguments) -> ExitCode {
    let directory = PathBuf::from("target/fuzz-inputs");
    if let Err(error) = std::fs::create_dir_all(&directory) {
        eprintln!("{}: {error}", directory.display());
        return ExitCode::from(2);
    }
    println!(
        "{:<14} {:>6} {:>12} {:>11} {:>6} {:>9} {:>8} {:>22} {:>11}",
        "target",
        "seed",
        "executions",
        "accepted",
        "kinds",
        "cpu s",
        "wall s",
        "slowest (its bytes)",
        "memory KiB"
    );
    let mut failed = false;
    for target in &arguments.targets {
        let at = directory.join(format!("{}-{}.now", target.name, arguments.seed));
        watch(at.clone());
        let report = run(target, arguments.seed, arguments.until, bounds(), Some(&at));
        tell(target, arguments.seed, &report);
        if let Some(failure) = &report.failure {
            failed = true;
            let path = save(&directory, target, arguments.seed, failure);
            broken(target, failure, &path);
        }
    }
    ExitCode::from(u8::from(failed))
}

fn tell(target: &Target, seed: u64, report: &Report) {
    let slowest = format!("{:.1} ms ({})", report.slowest.as_secs_f64() * 1000.0, report.slowest_bytes);
    println!(
        "{:<14} {seed:>6} {:>12} {:>11} {:>6} {:>9.1} {:>8.1} {slowest:>22} {:>11}",
        target.name,
        report.executions,
        report.accepted,
        report.kinds,
        report.processor.as_secs_f64(),
        report.wall.as_secs_f64(),
        report.most_memory >> 10,
    );
    let stages: Vec<String> =
        report.reached.iter().map(|(stage, count)| format!("{stage} {count}")).collect();
    println!("{:14} {}", "", stages.join(", "));
}

fn broken(target: &Target, failure: &Failure, path: &Path) {
    println!(
        "\n{}: {}\n  at execution {}, with {} bytes, made smaller to {}: {}\n  make fuzz TARGET={} INPUT={}",
        target.name,
        failure.what,
        failure.execution,
        failure.found_with,
        failure.input.len(),
        failure.input.escape_ascii(),
        target.name,
        path.display()
    );
}

fn replay(targets: Vec<&Target>, path: &Path) -> ExitCode {
    let input = match std::fs::read(path) {
        Ok(input) => input,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let mut failed = false;
    for target in targets {
        let execution = execute(target, &input);
        println!(
            "{}: {:.3} ms, {} KiB",
            target.name,
            execution.time.as_secs_f64() * 1000.0,
            execution.memory >> 10
        );
        println!("got to: {}", execution.reached.join(", "));
        match judge(execution, bounds()) {
            Ok(Seen::Accepted(shape)) => println!("accepted: {shape}"),
            Ok(Seen::Refused(why)) => println!("refused: {why}"),
            Err(what) => {
                failed = true;
                println!("MUST NOT BE: {what}");
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

/// Ends a process that does not get on: the input that it was at is in the file.
fn watch(at: PathBuf) {
    thread::spawn(move || {
        let mut known = DONE.load(Ordering::Relaxed);
        loop {
            thread::sleep(STUCK);
            let now = DONE.load(Ordering::Relaxed);
            if now == known {
                eprintln!("stuck: the input is in {}", at.display());
                std::process::abort();
            }
            known = now;
        }
    });
}
