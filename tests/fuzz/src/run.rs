//! The loop: take an input that was worth keeping, change it, have it read, look at what came of it.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::{self, File},
    io::{Seek, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    memory,
    mutate::mutate,
    random::Random,
    targets::{Seen, Target, take_reached},
};

/// Inputs that are kept beside the seeds.
const KEPT: usize = 2048;
/// Reasons that are told apart.
const KINDS: usize = 4096;
/// Tries to make a failure smaller.
const TRIES: usize = 4000;

#[derive(Clone, Copy, Debug)]
pub enum Until {
    Executions(u64),
    /// By the wall clock.
    Over(Duration),
}

/// What an input may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of processor time. `None` where the machine is not ours alone, or the build is a slow one.
    pub time: Option<Duration>,
    pub memory: usize,
}

#[derive(Debug, Default)]
pub struct Report {
    pub executions: u64,
    pub accepted: u64,
    /// Shapes of what was accepted, and reasons of refusals.
    pub kinds: usize,
    /// Of each stage of the target, how many changed inputs got there; seeds as they are do not count.
    pub reached: Vec<(&'static str, u64)>,
    pub wall: Duration,
    pub processor: Duration,
    pub slowest: Duration,
    pub slowest_bytes: usize,
    pub most_memory: usize,
    pub failure: Option<Failure>,
}

/// What must not be, as small as it could be made.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    pub input: Vec<u8>,
    /// Bytes of the input that it was found with.
    pub found_with: usize,
    pub execution: u64,
}

/// One input, and what it cost.
#[derive(Debug)]
pub struct Execution {
    pub result: Result<Seen, String>,
    pub reached: Vec<&'static str>,
    pub time: Duration,
    pub memory: usize,
}

/// Executions of the whole process so far, for whoever watches that it gets on.
pub static DONE: AtomicU64 = AtomicU64::new(0);

/// `at` is a file that always holds the input that is being read: what is left of a process that is killed.
pub fn run(target: &Target, seed: u64, until: Until, bounds: Bounds, at: Option<&PathBuf>) -> Report {
    let seeds = target.seeds();
    let mut random = Random::new(seed);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut kinds = BTreeSet::new();
    let reached = target.stages.iter().map(|stage| (*stage, 0)).collect();
    let mut report = Report { reached, ..Report::default() };
    let mut at = at.map(|path| File::create(path).unwrap());
    let (began, processor) = (Instant::now(), processor_time());
    loop {
        let done = match until {
            Until::Executions(executions) => report.executions >= executions,
            Until::Over(time) => report.executions.is_multiple_of(64) && began.elapsed() >= time,
        };
        if done {
            break;
        }
        // Every seed is read as it is, first.
        let turn = usize::try_from(report.executions).unwrap_or(usize::MAX);
        let input = match seeds.get(turn) {
            Some(seed) => seed.clone(),
            None => {
                let (base, other) = (choose(&mut random, &seeds, &kept), choose(&mut random, &seeds, &kept));
                mutate(&mut random, base, other, target.words, target.most_bytes)
            }
        };
        if let Some(file) = &mut at {
            file.set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(&input).unwrap();
        }
        let execution = execute(target, &input);
        report.executions += 1;
        if turn >= seeds.len() {
            count(&mut report.reached, &execution.reached);
        }
        DONE.fetch_add(1, Ordering::Relaxed);
        if execution.time > report.slowest {
            (report.slowest, report.slowest_bytes) = (execution.time, input.len());
        }
        report.most_memory = report.most_memory.max(execution.memory);
        match judge(execution, bounds) {
            Err(what) => {
                let (found_with, execution) = (input.len(), report.executions);
                let input = shrink(target, &what, input, bounds);
                report.failure = Some(Failure { what, input, found_with, execution });
                break;
            }
            Ok(seen) => {
                let (kind, is_accepted) = match seen {
                    Seen::Accepted(shape) => (format!("+{shape}"), true),
                    Seen::Refused(why) => (kind(&why), false),
                };
                report.accepted += u64::from(is_accepted);
                let is_new = kinds.len() < KINDS && kinds.insert(kind);
                if is_new || (is_accepted && random.one_in(50)) {
                    keep(&mut random, &mut kept, input);
                }
            }
        }
    }
    report.kinds = kinds.len();
    report.wall = began.elapsed();
    report.processor = processor_time().saturating_sub(processor);
    report
}

/// A stage that the target does not name is a mistake in it: it would be missed in no summary.
fn count(counts: &mut [(&'static str, u64)], reached: &[&'static str]) {
    for stage in reached {
        let known = counts.iter_mut().find(|(name, _)| name == stage);
        known.unwrap_or_else(|| panic!("no stage is called {stage}")).1 += 1;
    }
}

fn choose<'a>(random: &mut Random, seeds: &'a [Vec<u8>], kept: &'a [Vec<u8>]) -> &'a [u8] {
    match kept.is_empty() || random.one_in(3) {
        true => random.pick::<Vec<u8>>(seeds),
        false => random.pick::<Vec<u8>>(kept),
    }
}

fn keep(random: &mut Random, kept: &mut Vec<Vec<u8>>, input: Vec<u8>) {
    if kept.len() < KEPT {
        kept.push(input);
    } else {
        let at = random.below(KEPT);
        kept[at] = input;
    }
}

thread_local! {
    /// What the panic of an input said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: RefCell<bool> = const { RefCell::new(false) };
}

/// Panics of inputs are kept, all others told as before.
fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match QUIET.with_borrow(|quiet| *quiet) {
            true => PANIC.with_borrow_mut(|told| *told = Some(panic.to_string())),
            false => before(panic),
        }));
    });
}

/// One input, from outside of a run.
pub fn execute(target: &Target, input: &[u8]) -> Execution {
    listen();
    drop(take_reached());
    QUIET.set(true);
    memory::begin();
    let began = processor_time();
    let result = catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
    let time = processor_time().saturating_sub(began);
    let memory = memory::most();
    QUIET.set(false);
    let result = result.unwrap_or_else(|_| Err(PANIC.take().unwrap_or_else(|| "a panic".to_owned())));
    Execution { result, reached: take_reached(), time, memory }
}

/// What must not be: a broken property, a panic, or a cost beyond its bound.
pub fn judge(execution: Execution, bounds: Bounds) -> Result<Seen, String> {
    let seen = execution.result?;
    if bounds.time.is_some_and(|most| execution.time > most) {
        return Err(format!("it takes {} ms of processor time", execution.time.as_millis()));
    }
    if execution.memory > bounds.memory {
        return Err(format!("it makes the reader hold {} KiB", execution.memory >> 10));
    }
    Ok(seen)
}

/// What is left out as long as it fails for the same reason.
fn shrink(target: &Target, what: &str, mut input: Vec<u8>, bounds: Bounds) -> Vec<u8> {
    let wanted = kind(what);
    let mut tries = 0;
    let mut fails = |input: &[u8]| {
        tries += 1;
        let same = judge(execute(target, input), bounds).is_err_and(|what| kind(&what) == wanted);
        (same, tries < TRIES)
    };
    let mut size = input.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < input.len() {
            let end = (start + size).min(input.len());
            let shorter = [&input[..start], &input[end..]].concat();
            let (same, more) = fails(&shorter);
            if same {
                input = shorter;
            } else {
                start = end;
            }
            if !more {
                return input;
            }
        }
        size /= 2;
    }
    input
}

/// A sentence without what differs from input to input: numbers, and what is quoted.
fn kind(why: &str) -> String {
    let mut kind = String::new();
    let mut quote = None;
    for c in why.chars().take(400) {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if c.is_ascii_digit() => {
                if !kind.ends_with('#') {
                    kind.push('#');
                }
            }
            None => kind.push(c),
        }
        if kind.len() > 120 {
            break;
        }
    }
    kind
}

/// Of this thread: what others do at the same time is not the input's fault.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Where a failing input is kept.
pub fn save(directory: &PathBuf, target: &Target, seed: u64, failure: &Failure) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(format!("{}-{seed}-{}.crash", target.name, failure.execution));
    fs::write(&path, &failure.input).unwrap();
    path
}
