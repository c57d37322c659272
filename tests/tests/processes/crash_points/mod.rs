//! Crash points: agent, supervisor and coordinator killed before and after every durable write, send and exec of a
//! reference deployment (`consign_common::crash`), each in an act of its own that begins from the same disk. However it
//! goes on: the rollout ends, no effect is doubled, none that is reported is missing, no output is lost or doubled,
//! `current` leads to a whole release, and all is as without the kill; only what a killed supervisor executed may be
//! unknown.
//!
//! `CONSIGN_CRASH_POINTS=all` tries every point; `agent:upgrade:17` tries one; without, a sample is drawn.

mod reference;
mod stage;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use reference::ACTS;
use stage::{Stage, Victim};

use crate::random::Random;

/// What a sample may take; the points that are drawn are tried in turn until then.
const SAMPLE_TAKES: Duration = Duration::from_secs(60);
/// Acts that take longer are named.
const SLOW: Duration = Duration::from_secs(10);
/// Stages on which acts are played at once: an act waits for disks and processes more than it computes.
const STAGES: usize = 4;
/// Points that a run without a kill passes at least, of each kind of process in each act: less is a test that lost them.
const LEAST: usize = 25;

/// One kill: of whom, in which act, at which of its points.
#[derive(Clone, Copy, Debug)]
struct Trial {
    victim: Victim,
    act: usize,
    number: u64,
}

impl Trial {
    fn name(&self) -> String {
        format!("{}:{}:{}", self.victim.name(), ACTS[self.act].name, self.number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    AsWithout,
    /// What the killed supervisor executed is unknown, and the rollout with it.
    Unknown,
    /// It was unknown, and by its plan could be tried again.
    TriedAgain,
    /// This run passed fewer points.
    NotReached,
    Violated(String),
}

#[test]
fn every_crash_point() {
    let mut random = Random::from_environment();
    let wanted = std::env::var("CONSIGN_CRASH_POINTS").unwrap_or_default();
    println!("CONSIGN_TEST_SEED={} CONSIGN_CRASH_POINTS={wanted}", random.seed());

    let mut stages: Vec<Stage> = std::thread::scope(|scope| {
        let stages = if wanted.contains(':') { 1 } else { STAGES };
        let building: Vec<_> = (0..stages).map(|_| scope.spawn(Stage::build)).collect();
        building.into_iter().map(|stage| stage.join().unwrap()).collect()
    });
    let all = trials(&stages[0]);
    let mut chosen = all.clone();
    random.shuffle(&mut chosen);
    let mut deadline = Some(Instant::now() + SAMPLE_TAKES);
    if wanted == "all" {
        deadline = None;
    } else if wanted.contains(':') {
        chosen.retain(|trial| trial.name() == wanted);
        assert_eq!(
            chosen.len(),
            1,
            "{wanted} is not one of {:?}",
            all.iter().map(Trial::name).collect::<Vec<_>>()
        );
    }

    let waiting = Mutex::new(VecDeque::from(chosen));
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for stage in &mut stages {
            let (waiting, done) = (&waiting, &done);
            scope.spawn(move || {
                while deadline.is_none_or(|deadline| Instant::now() < deadline)
                    && let Some(trial) = next(waiting)
                {
                    let verdict = attempt(stage, trial);
                    let mut done = lock(done);
                    done.push((trial, verdict));
                    if done.len() % 100 == 0 {
                        println!("{} crash points tried", done.len());
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    print_table(&all, &done);
    let violated: Vec<String> = done
        .iter()
        .filter_map(|(trial, (point, verdict))| match verdict {
            Verdict::Violated(why) => Some(format!("CONSIGN_CRASH_POINTS={} ({point}): {why}", trial.name())),
            Verdict::AsWithout | Verdict::Unknown | Verdict::TriedAgain | Verdict::NotReached => None,
        })
        .collect();
    assert!(violated.is_empty(), "{} crash points:\n{}", violated.len(), violated.join("\n"));
}

/// Every point that the acts passed without a kill.
fn trials(stage: &Stage) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (act, reference) in stage.references.iter().enumerate() {
        for (victim, points) in &reference.points {
            let (name, count) = (victim.name(), points.len());
            assert!(
                count >= LEAST,
                "the {name} passed only {count} points in {}: {points:?}",
                ACTS[act].name
            );
            trials.extend((1..=count as u64).map(|number| Trial { victim: *victim, act, number }));
        }
    }
    trials
}

/// Kills, and judges what came of it. Gives also the point's name.
fn attempt(stage: &mut Stage, trial: Trial) -> (String, Verdict) {
    let Trial { victim, act, number } = trial;
    let began = Instant::now();
    let played = stage.play(act, Some((victim, number)));
    let point = played.points.get(&victim).and_then(|points| points.get(usize::try_from(number).ok()? - 1));
    if began.elapsed() > SLOW {
        println!("{} ({point:?}) took {:?}", trial.name(), began.elapsed());
    }
    let Some(point) = point.cloned() else { return (String::new(), Verdict::NotReached) };
    let without = stage.references[act].outcome.as_ref().unwrap();
    let judged = played.outcome.and_then(|outcome| {
        outcome.check_alone(&ACTS[act])?;
        if outcome == *without {
            return Ok(Verdict::AsWithout);
        }
        match victim {
            Victim::Supervisor => {
                outcome.check_unknown(without)?;
                Ok(if outcome.state == "unknown" { Verdict::Unknown } else { Verdict::TriedAgain })
            }
            Victim::Agent | Victim::Coordinator => {
                Err(format!("{outcome:#?}\nand without the kill: {without:#?}"))
            }
        }
    });
    let verdict = judged.unwrap_or_else(|why| {
        println!("{} ({point}): {why}\n{}", trial.name(), stage.logs());
        Verdict::Violated(why)
    });
    (point, verdict)
}

fn print_table(all: &[Trial], done: &[(Trial, (String, Verdict))]) {
    const COLUMNS: [&str; 8] =
        ["process", "points", "tried", "not reached", "as without", "tried again", "unknown", "violated"];
    let row = |cells: [String; 8]| {
        let cells = cells.iter().zip(COLUMNS).map(|(cell, name)| format!("{cell:>0$}", name.len().max(11)));
        println!("{}", cells.collect::<Vec<_>>().join("  "));
    };
    row(COLUMNS.map(str::to_owned));
    for victim in Victim::ALL {
        let points = all.iter().filter(|trial| trial.victim == victim).count();
        let of: Vec<&Verdict> = done
            .iter()
            .filter(|(trial, _)| trial.victim == victim)
            .map(|(_, (_, verdict))| verdict)
            .collect();
        let count = |is: fn(&Verdict) -> bool| of.iter().filter(|verdict| is(verdict)).count().to_string();
        row([
            victim.name().to_owned(),
            points.to_string(),
            of.len().to_string(),
            count(|verdict| matches!(verdict, Verdict::NotReached)),
            count(|verdict| matches!(verdict, Verdict::AsWithout)),
            count(|verdict| matches!(verdict, Verdict::TriedAgain)),
            count(|verdict| matches!(verdict, Verdict::Unknown)),
            count(|verdict| matches!(verdict, Verdict::Violated(_))),
        ]);
    }
    let mut names: BTreeMap<(Victim, &str), usize> = BTreeMap::new();
    for (trial, (point, verdict)) in done {
        if *verdict != Verdict::NotReached {
            *names.entry((trial.victim, point)).or_default() += 1;
        }
    }
    let kills: Vec<String> =
        names.iter().map(|((victim, point), kills)| format!("{} {point} {kills}", victim.name())).collect();
    println!("kills by point: {}", kills.join(", "));
}

/// A function of its own, so that the lock is let go before the trial.
fn next(waiting: &Mutex<VecDeque<Trial>>) -> Option<Trial> {
    lock(waiting).pop_front()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
