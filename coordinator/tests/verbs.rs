//! What operators do to rollouts: every verb from its legal states, recorded; from every other one a refusal, and nothing
//! changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{
    World,
    agent::publish_plan,
    fleet::{PLAN, Server, start, until},
};
use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event},
    plan::Phase,
    trust::{DecisionAction, OrderKind},
};
use consign_proto::v1::{self, operators_client::OperatorsClient};
use tonic::{Code, Status, transport::Channel};

type Client = OperatorsClient<Channel>;

async fn pause(admin: &mut Client, rollout: &str, why: &str) -> Result<v1::Rollout, Status> {
    let request = v1::PauseRolloutRequest { rollout: rollout.to_owned(), reason: why.to_owned() };
    admin.pause_rollout(request).await.map(tonic::Response::into_inner)
}

async fn resume(admin: &mut Client, rollout: &str, why: &str) -> Result<v1::Rollout, Status> {
    let request = v1::ResumeRolloutRequest { rollout: rollout.to_owned(), reason: why.to_owned() };
    admin.resume_rollout(request).await.map(tonic::Response::into_inner)
}

async fn abort(admin: &mut Client, rollout: &str, why: &str) -> Result<v1::Rollout, Status> {
    let request = v1::AbortRolloutRequest { rollout: rollout.to_owned(), reason: why.to_owned() };
    admin.abort_rollout(request).await.map(tonic::Response::into_inner)
}

async fn retry(admin: &mut Client, rollout: &str, why: &str) -> Result<v1::Rollout, Status> {
    let request = v1::RetryRolloutRequest { rollout: rollout.to_owned(), reason: why.to_owned() };
    admin.retry_rollout(request).await.map(tonic::Response::into_inner)
}

async fn skip(admin: &mut Client, rollout: &str, server: &str, step: &str) -> Result<v1::Rollout, Status> {
    let request = v1::SkipInRolloutRequest {
        rollout: rollout.to_owned(),
        reason: "not there".into(),
        server: server.into(),
        step: step.into(),
        statements: Vec::new(),
    };
    admin.skip_in_rollout(request).await.map(tonic::Response::into_inner)
}

async fn decide(admin: &mut Client, rollout: &str, server: &str, step: &str) -> Result<v1::Rollout, Status> {
    let request = v1::DecideStepRequest {
        rollout: rollout.to_owned(),
        reason: "seen in the database".into(),
        server: server.into(),
        step: step.into(),
        action: "done".into(),
        statements: Vec::new(),
    };
    admin.decide_step(request).await.map(tonic::Response::into_inner)
}

async fn history(admin: &mut Client, rollout: &str) -> Vec<v1::Happening> {
    let request = v1::ShowHistoryRequest { rollout: rollout.to_owned() };
    admin.show_history(request).await.unwrap().into_inner().happenings
}

/// A verb that is not legal now: this message, and the rollout and its history as they were.
async fn refused(world: &World, rollout: &str, verb: Result<v1::Rollout, Status>, word: &str) {
    let status = verb.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().starts_with("not-now: "), "{status:?}");
    assert!(status.message().contains(word), "{status:?}");
    let of_operators = history(&mut world.admin().await, rollout).await;
    assert!(of_operators.iter().all(|line| line.because != "refused"), "{of_operators:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_paused_resumed_and_its_failed_server_retried() {
    let world = World::new().await;
    let mut one = Server::new(&world, "web-1", &[]).await;
    let mut two = Server::new(&world, "web-2", &[]).await;
    publish_plan(&world, "1.0", PLAN).await;
    let mut admin = world.admin().await;
    let begun = v1::StartRolloutRequest { reason: "spring sale".into(), ..start("1.0", &["1", "100%"]) };
    let id = admin.start_rollout(begun).await.unwrap().into_inner().id;

    let order = one.order().await;
    refused(&world, &id, resume(&mut admin, &id, "refused").await, "it must be paused").await;
    refused(&world, &id, retry(&mut admin, &id, "refused").await, "it must be ended").await;
    let paused = pause(&mut admin, &id, "lunch").await.unwrap();
    assert_eq!((paused.state.as_str(), paused.paused.as_str()), ("paused", "paused by ada: lunch"));
    refused(
        &world,
        &id,
        pause(&mut admin, &id, "refused").await,
        "the rollout is paused; it must be running",
    )
    .await;
    one.succeed(&order).await;
    let still = until(&world, &id, |it| it.deployments[0].state == "succeeded").await;
    assert_eq!((still.state.as_str(), still.deployments[1].state.as_str()), ("paused", "pending"));

    resume(&mut admin, &id, "back").await.unwrap();
    let order = two.order().await;
    two.fail(&order).await;
    let stopped = until(&world, &id, |it| it.ended_ms > 0).await;
    assert_eq!((stopped.state.as_str(), stopped.exit_code), ("stopped", 3));
    for verb in [
        pause(&mut admin, &id, "refused").await,
        resume(&mut admin, &id, "refused").await,
        abort(&mut admin, &id, "refused").await,
    ] {
        refused(&world, &id, verb, "the rollout is stopped").await;
    }

    assert_eq!(retry(&mut admin, &id, "the disk is mended").await.unwrap().state, "running");
    let again = two.order().await;
    assert_ne!(again.deployment, order.deployment, "a deployment of its own");
    assert!(again.term > order.term);
    two.succeed(&again).await;
    let ended = until(&world, &id, |it| it.ended_ms > 0).await;
    assert_eq!((ended.state.as_str(), ended.deployments[1].attempt), ("succeeded", 2));
    let verb = retry(&mut admin, &id, "refused").await;
    refused(&world, &id, verb, "no server failed or was not reached").await;

    let told: Vec<(String, String, String)> = history(&mut admin, &id)
        .await
        .into_iter()
        .filter(|line| !line.who.is_empty())
        .map(|line| (line.who, line.what, line.because))
        .collect();
    let expected = [
        ("ada", "start", "spring sale"),
        ("ada", "pause", "lunch"),
        ("ada", "resume", "back"),
        ("ada", "retry", "the disk is mended"),
    ];
    assert_eq!(told, expected.map(|(who, what, why)| (who.into(), what.into(), why.into())));

    let request = v1::ShowTimelineRequest { rollout: id.clone() };
    let timeline = admin.show_timeline(request).await.unwrap().into_inner();
    let lines: Vec<_> = timeline.servers.iter().map(|it| (it.server.as_str(), it.attempt)).collect();
    assert_eq!(lines, [("web-1", 1), ("web-2", 1), ("web-2", 2)]);
    let failed = timeline.servers[1].bars.iter().find(|bar| bar.step == "migrate").unwrap();
    assert_eq!((failed.state.as_str(), failed.phase.as_str()), ("failed", "deploy"));
    assert!(failed.to_ms >= failed.from_ms && failed.from_ms > 0);
    assert!(timeline.waves.iter().any(|bar| bar.what == "paused" && bar.to_ms > 0), "{:?}", timeline.waves);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_steps_are_left_out() {
    let world = World::new().await;
    let mut one = Server::new(&world, "web-1", &[]).await;
    let mut two = Server::new(&world, "web-2", &[]).await;
    let _three = Server::new(&world, "web-3", &[]).await;
    publish_plan(&world, "1.0", PLAN).await;
    let mut admin = world.admin().await;
    let id = admin.start_rollout(start("1.0", &["1"])).await.unwrap().into_inner().id;
    let order = one.order().await;

    let none = skip(&mut admin, &id, "", "").await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
    refused(&world, &id, skip(&mut admin, &id, "web-9", "").await, "web-9 is not in this rollout").await;
    refused(&world, &id, skip(&mut admin, &id, "web-1", "").await, "cannot leave web-1 out").await;

    skip(&mut admin, &id, "web-3", "").await.unwrap();
    skip(&mut admin, &id, "", "migrate").await.unwrap();
    let told = one.order().await;
    assert!(
        matches!(&told.order, OrderKind::Decide { step, action: DecisionAction::Skip, reason }
            if step.as_str() == "migrate" && reason.contains("not there")),
        "{told:?}"
    );
    one.succeed(&order).await;
    let order = two.order().await;
    let OrderKind::Deploy { skip, .. } = &order.order else { panic!("{order:?}") };
    assert_eq!(skip.iter().map(|step| step.as_str()).collect::<Vec<_>>(), ["migrate"]);
    two.succeed(&order).await;
    let ended = until(&world, &id, |it| it.ended_ms > 0).await;
    assert_eq!((ended.state.as_str(), ended.exit_code), ("partial", 7));
    assert_eq!((ended.deployments[2].state.as_str(), ended.skips[0].step.as_str()), ("skipped", "migrate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_decided_by_a_person() {
    let world = World::new().await;
    let mut one = Server::new(&world, "web-1", &[]).await;
    publish_plan(&world, "1.0", PLAN).await;
    let mut admin = world.admin().await;
    let id = admin.start_rollout(start("1.0", &[])).await.unwrap().into_inner().id;
    let order = one.order().await;
    one.accept(&order).await;
    refused(&world, &id, decide(&mut admin, &id, "web-1", "migrate").await, "nothing to decide").await;

    let attempt = Attempt { phase: Phase::Deploy, step: 0, number: 1 };
    one.tell(&order, &Event::Started { attempt, boot_id: "b".into() }).await;
    let undecided = Event::Undecided { phase: Phase::Deploy, step: 0, because: "the power went".into() };
    one.tell(&order, &undecided).await;
    let waits = until(&world, &id, |it| it.deployments[0].state == "unknown").await;
    assert!(waits.deployments[0].because.contains("consign rollout decide"), "{waits:?}");
    refused(&world, &id, decide(&mut admin, &id, "web-1", "activate").await, "on step migrate, not on").await;
    decide(&mut admin, &id, "web-1", "migrate").await.unwrap();
    let told = one.order().await;
    let OrderKind::Decide { step, action, reason } = &told.order else { panic!("{told:?}") };
    assert_eq!((step.as_str(), *action), ("migrate", DecisionAction::Done));
    assert!(reason.contains("ada") && reason.contains("seen in the database"), "{reason}");
    let decided = Event::Decided {
        order: told.id.clone(),
        phase: Phase::Deploy,
        step: 0,
        action: DecisionAction::Done,
        reason: reason.clone(),
    };
    one.tell(&order, &decided).await;
    one.end(&order, DeploymentOutcome::Succeeded { tolerated: Vec::new() }).await;
    // What the rollout comes to then is the engine's; here, that the server went on.
    until(&world, &id, |it| it.deployments[0].state == "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_opposite_verbs_at_once_each_is_legal_in_its_turn_or_refused() {
    let world = World::new().await;
    let mut server = Server::new(&world, "web-1", &[]).await;
    publish_plan(&world, "1.0", PLAN).await;
    let (mut ada, mut other) = (world.admin().await, world.local().await);
    for round in 0..8 {
        let id = ada.start_rollout(start("1.0", &[])).await.unwrap().into_inner().id;
        let order = server.order().await;
        let (paused, resumed) = tokio::join!(pause(&mut ada, &id, "a"), resume(&mut other, &id, "b"));
        assert!(paused.is_ok(), "round {round}: it was running: {paused:?}");
        let state = until(&world, &id, |_| true).await.state;
        assert_eq!(state, if resumed.is_ok() { "running" } else { "paused" }, "round {round}");

        let (resumed, aborted) = tokio::join!(resume(&mut ada, &id, "c"), abort(&mut other, &id, "d"));
        assert!(aborted.is_ok(), "round {round}: it had not ended: {aborted:?}");
        let cancel = server.order().await;
        assert!(matches!(cancel.order, OrderKind::Cancel { .. }), "round {round}: {cancel:?}");
        server.accept(&order).await;
        server.end(&order, DeploymentOutcome::Cancelled { because: "aborted".into() }).await;
        let ended = until(&world, &id, |it| it.ended_ms > 0).await;
        assert_eq!(ended.state, "aborted", "round {round}: {resumed:?}");
        let pressed = [resumed.is_ok(), true].iter().filter(|legal| **legal).count();
        let lines = history(&mut ada, &id).await;
        let of_second = lines.iter().filter(|line| matches!(line.because.as_str(), "c" | "d")).count();
        assert_eq!(of_second, pressed, "round {round}: what was refused is not in the history");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_against_rollouts_that_there_are_not() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let unknown = "0".repeat(32);
    for verb in [
        pause(&mut admin, &unknown, "x").await,
        resume(&mut admin, &unknown, "x").await,
        abort(&mut admin, &unknown, "x").await,
        retry(&mut admin, &unknown, "x").await,
        skip(&mut admin, &unknown, "web-1", "").await,
        decide(&mut admin, &unknown, "web-1", "migrate").await,
    ] {
        let status = verb.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        assert!(status.message().starts_with("rollout-unknown: "), "{status:?}");
    }
    let long = pause(&mut admin, &unknown, &"x".repeat(501)).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
}
