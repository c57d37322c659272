//! How attempts end by themselves, by timeout and by cancel.

use std::time::{Duration, Instant};

use consign_agent::supervisor::{Run, Supervisor, SupervisorError};
use consign_common::deployment::{Failure, StepOutcome, log::Stream};

use crate::harness::{Deployment, PATIENCE, is_alive, launcher, marked, number_in, pid, until};

fn failed(failure: Failure) -> StepOutcome {
    StepOutcome::Failed { failure }
}

#[tokio::test]
async fn an_exit_code_is_the_outcome() {
    assert_eq!(Deployment::start().await.outcome("exit 0").await, StepOutcome::Succeeded);
    assert_eq!(Deployment::start().await.outcome("exit 3").await, failed(Failure::Exit { code: 3 }));
}

#[tokio::test]
async fn a_signal_is_the_outcome() {
    let outcome = Deployment::start().await.outcome("kill -SEGV $$").await;
    assert!(
        matches!(outcome, StepOutcome::Failed { failure: Failure::Signal { signal: 11, .. } }),
        "{outcome:?}"
    );
    let outcome = Deployment::start().await.outcome("kill -40 $$").await;
    assert_eq!(outcome, failed(Failure::Signal { signal: 40, core_dumped: false }), "a real-time signal too");
}

#[tokio::test]
async fn nothing_executes_before_it_is_released() {
    let deployment = Deployment::start().await;
    let trace = deployment.scratch("trace");
    let spec = deployment.shell(&format!("echo 1 > {}", trace.display()));
    let Run::Spawned(identity) = deployment.supervisor.run(&spec).await.unwrap() else { panic!() };
    let Run::Spawned(again) = deployment.supervisor.run(&spec).await.unwrap() else { panic!() };
    assert_eq!(identity, again, "run is idempotent");
    assert!(is_alive(pid(&identity)));
    assert!(!trace.exists());
    deployment.supervisor.release(spec.attempt).await.unwrap();
    let record = deployment.end(spec.attempt).await;
    assert_eq!((record.result.clone(), record.identity.clone()), (StepOutcome::Succeeded, identity));
    assert_eq!(number_in(&trace).await, 1);
    let Run::Finished(told) = deployment.supervisor.run(&spec).await.unwrap() else { panic!() };
    assert_eq!(*told, record, "an attempt executes once");
}

#[tokio::test]
async fn attempts_follow_one_another_and_never_overlap() {
    let deployment = Deployment::start().await;
    let first = deployment.shell("sleep 600");
    deployment.begin(&first).await;
    let second = consign_agent::supervisor::AttemptSpec {
        attempt: "deploy-1-1".parse().unwrap(),
        ..deployment.shell("echo second")
    };
    let refused = deployment.supervisor.run(&second).await;
    assert!(matches!(refused, Err(SupervisorError::Refused { .. })), "{refused:?}");
    let refused = deployment.supervisor.shut_down().await;
    assert!(matches!(refused, Err(SupervisorError::Refused { .. })), "{refused:?}");
    deployment.supervisor.cancel(first.attempt).await.unwrap();
    assert_eq!(deployment.end(first.attempt).await.result, StepOutcome::Cancelled);
    assert_eq!(deployment.execute(&second).await.result, StepOutcome::Succeeded);
    assert_eq!(deployment.said(second.attempt, Stream::Stdout), "second\n");
}

#[tokio::test]
async fn a_timeout_ends_children_that_ignore_term() {
    let deployment = Deployment::start().await;
    let child = deployment.scratch("child");
    let script =
        format!("trap '' TERM; (trap '' TERM; sleep 600) & echo $! > {}; wait; sleep 600", child.display());
    let mut spec = deployment.shell(&script);
    (spec.timeout_ms, spec.grace_ms) = (500, 200);
    let begun = Instant::now();
    let record = deployment.execute(&spec).await;
    assert_eq!(record.result, failed(Failure::Timeout { after_ms: 500 }));
    assert!(
        begun.elapsed() >= Duration::from_millis(700) && begun.elapsed() < PATIENCE,
        "{:?}",
        begun.elapsed()
    );
    assert!(!is_alive(number_in(&child).await));
    assert_eq!(marked(&deployment.directory), Vec::<u32>::new());
    let words = deployment.said(spec.attempt, Stream::System);
    assert!(words.contains("timed out after 500 ms"), "{words}");
}

#[tokio::test]
async fn a_program_that_heeds_term_may_clean_up_and_say_so() {
    let deployment = Deployment::start().await;
    let mut spec = deployment.shell("trap 'echo cleaned up; exit 0' TERM; while :; do sleep 0.05; done");
    spec.timeout_ms = 400;
    let begun = Instant::now();
    let record = deployment.execute(&spec).await;
    assert_eq!(record.result, failed(Failure::Timeout { after_ms: 400 }));
    assert!(begun.elapsed() < Duration::from_secs(8), "it did not wait for the grace's end");
    assert_eq!(deployment.said(spec.attempt, Stream::Stdout), "cleaned up\n");
}

#[tokio::test]
async fn a_cancel_before_the_release_executes_nothing() {
    let deployment = Deployment::start().await;
    let trace = deployment.scratch("trace");
    let spec = deployment.shell(&format!("echo 1 > {}", trace.display()));
    let Run::Spawned(identity) = deployment.supervisor.run(&spec).await.unwrap() else { panic!() };
    deployment.supervisor.cancel(spec.attempt).await.unwrap();
    assert_eq!(deployment.end(spec.attempt).await.result, StepOutcome::Cancelled);
    assert!(!trace.exists() && !is_alive(pid(&identity)));
}

#[tokio::test]
async fn a_supervisor_ends_when_told_and_another_can_follow() {
    let deployment = Deployment::start().await;
    deployment.outcome("true").await;
    deployment.supervisor.shut_down().await.unwrap();
    let mut left = true;
    for _ in 0..500 {
        left = Supervisor::attach(&deployment.directory).await.unwrap().is_some();
        if !left {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!left, "it still listens");
    let next = Supervisor::start(&deployment.directory, &launcher()).await.unwrap();
    let spec = deployment.shell("true");
    assert!(
        matches!(next.run(&spec).await.unwrap(), Run::Finished(_)),
        "what ended before is known to the next one"
    );
}

#[tokio::test]
async fn a_supervisor_ends_when_its_deployment_is_removed() {
    let deployment = Deployment::start().await;
    let spec = deployment.shell("sleep 600");
    let Run::Spawned(identity) = deployment.supervisor.run(&spec).await.unwrap() else { panic!() };
    let supervisor = deployment.supervisor_pid(&identity);
    std::fs::remove_dir_all(&deployment.directory).unwrap();
    until("the supervisor exits", || !is_alive(supervisor)).await;
    assert!(!is_alive(pid(&identity)), "what was never released does not stay");
}
