//! What an attempt starts and does not wait for.

use std::time::{Duration, Instant};

use consign_agent::supervisor::AttemptSpec;
use consign_common::deployment::{StepOutcome, log::Stream};

use crate::harness::{Deployment, is_alive, kill, marked, number_in};

/// Forks twice into a session of its own, without the environment, and writes its pid.
fn daemon(deployment: &Deployment, file: &str, redirect: &str) -> String {
    let path = deployment.scratch(file);
    format!(
        "setsid sh -c 'env -i sh -c \"echo \\$\\$ > {0}.part; mv {0}.part {0}; exec sleep 600\" & ' {redirect} & \
         while [ ! -s {0} ]; do sleep 0.01; done",
        path.display()
    )
}

#[tokio::test]
async fn a_daemon_that_forked_away_and_dropped_its_environment_is_killed() {
    let deployment = Deployment::start().await;
    let spec = deployment.shell(&daemon(&deployment, "daemon", "</dev/null >/dev/null 2>&1"));
    let record = deployment.execute(&spec).await;
    assert_eq!((record.result, record.leftovers), (StepOutcome::Succeeded, vec![]));
    assert!(!is_alive(number_in(&deployment.scratch("daemon")).await));
}

#[tokio::test]
async fn a_daemon_that_holds_stdout_open_delays_nothing() {
    let deployment = Deployment::start().await;
    let spec = deployment.shell(&format!("{}; echo last words", daemon(&deployment, "daemon", "")));
    let begun = Instant::now();
    let record = deployment.execute(&spec).await;
    assert_eq!(record.result, StepOutcome::Succeeded);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(deployment.said(spec.attempt, Stream::Stdout), "last words\n");
    assert!(!is_alive(number_in(&deployment.scratch("daemon")).await));
}

#[tokio::test]
async fn with_leaves_it_stays_and_is_listed_and_the_next_attempt_leaves_it_alone() {
    let deployment = Deployment::start().await;
    let script = daemon(&deployment, "daemon", "</dev/null >/dev/null 2>&1");
    let spec = AttemptSpec { leaves: true, ..deployment.shell(&script) };
    let record = deployment.execute(&spec).await;
    let daemon = number_in(&deployment.scratch("daemon")).await;
    assert_eq!(record.result, StepOutcome::Succeeded);
    let listed = record.leftovers.iter().find(|leftover| leftover.pid == daemon);
    assert_eq!(listed.map(|leftover| leftover.command.as_str()), Some("sleep 600"), "{:?}", record.leftovers);
    let next =
        AttemptSpec { attempt: "deploy-1-1".parse().unwrap(), ..deployment.shell("sleep 600 & exit 0") };
    assert_eq!(deployment.execute(&next).await.leftovers, []);
    assert!(is_alive(daemon));
    let left: Vec<u32> = marked(&deployment.directory);
    assert!(left.len() <= 1, "what the second attempt started is gone: {left:?}");
    for leftover in record.leftovers {
        kill(leftover.pid);
    }
}

#[tokio::test]
async fn a_timeout_kills_also_with_leaves() {
    let deployment = Deployment::start().await;
    let script = format!("{}; sleep 600", daemon(&deployment, "daemon", "</dev/null >/dev/null 2>&1"));
    let mut spec = AttemptSpec { leaves: true, ..deployment.shell(&script) };
    (spec.timeout_ms, spec.grace_ms) = (3000, 100);
    let record = deployment.execute(&spec).await;
    assert_eq!(record.leftovers, []);
    assert!(!is_alive(number_in(&deployment.scratch("daemon")).await));
}

#[tokio::test]
async fn a_program_that_forks_without_end_is_ended() {
    let deployment = Deployment::start().await;
    let mut spec = deployment.shell("trap '' TERM; while :; do (trap '' TERM; sleep 5) & sleep 0.002; done");
    (spec.timeout_ms, spec.grace_ms) = (500, 100);
    deployment.execute(&spec).await;
    assert_eq!(marked(&deployment.directory), Vec::<u32>::new());
}
