//! Environments: what is applied holds for rollouts that are started after it; and what is refused before any server hears
//! of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{
    World,
    agent::publish_plan,
    fleet::{PLAN, Server, start, until},
};
use consign_common::{
    deployment::{DeploymentOutcome, Event},
    time::{Clock as _, SystemClock},
    trust::OrderKind,
};
use consign_proto::v1::{self, operators_client::OperatorsClient};
use tonic::{Code, Status, transport::Channel};

const FILE: &str = r#"
[environment.staging]
waves = ["1", "100%"]
bake = "5m"
failures = 1
confirm = "8m"
on_stop = "rollback"
"#;

fn apply(text: &str) -> v1::ApplyEnvironmentsRequest {
    v1::ApplyEnvironmentsRequest { file_name: "e.toml".into(), text: text.into(), dry_run: false }
}

async fn shown(admin: &mut OperatorsClient<Channel>) -> v1::Environment {
    let request = v1::ShowEnvironmentRequest { name: "staging".into() };
    admin.show_environment(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_applied_whole_or_not_at_all_and_says_what_changed() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let before = shown(&mut admin).await;
    assert_eq!((before.applied_ms, before.settings), (0, Some(v1::Settings::default())));

    for (text, word) in [
        ("[environment.staging]\nbake = \"5 m\"\n", "e.toml:2:8: `bake`"),
        ("[environment.staging]\nbakes = \"5m\"\n", "did you mean `bake`?"),
        ("[environment.staging]\nfailures = 1\n[environment.nowhere]\n", "does not name nowhere"),
    ] {
        let status = admin.apply_environments(apply(text)).await.unwrap_err();
        assert!(status.message().contains(word), "{status:?}");
        assert_eq!(shown(&mut admin).await.applied_ms, 0, "{text}");
    }
    let dry = v1::ApplyEnvironmentsRequest { dry_run: true, ..apply(FILE) };
    assert_eq!(admin.apply_environments(dry).await.unwrap().into_inner().changes.len(), 5);
    assert_eq!(shown(&mut admin).await.applied_ms, 0);

    assert_eq!(admin.apply_environments(apply(FILE)).await.unwrap().into_inner().changes.len(), 5);
    assert!(admin.apply_environments(apply(FILE)).await.unwrap().into_inner().changes.is_empty());
    let second = apply("[environment.staging]\nbake = \"90s\"\nfailures = 1\n");
    let changes = admin.apply_environments(second).await.unwrap().into_inner().changes;
    let told: Vec<_> =
        changes.iter().map(|it| (it.setting.as_str(), it.before.as_str(), it.after.as_str())).collect();
    let expected = [
        ("waves", r#"["1", "100%"]"#, ""),
        ("bake", "\"5m\"", "\"90s\""),
        ("confirm", "\"8m\"", ""),
        ("on_stop", "\"rollback\"", ""),
    ];
    assert_eq!(told, expected);
    let after = shown(&mut admin).await;
    assert_eq!((after.applied_by.as_str(), after.settings.unwrap().bake_ms), ("ada", Some(90_000)));
    let history: Vec<_> = after.history.iter().map(|it| (it.who.as_str(), it.what.as_str())).collect();
    assert_eq!(history, [("ada", "apply"), ("ada", "apply")], "an apply without a change is none");
    let all = admin.list_environments(v1::ListEnvironmentsRequest {}).await.unwrap().into_inner();
    assert_eq!(all.environments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_about_it_as_its_environment_says_but_for_what_it_says_itself() {
    let world = World::new().await;
    let mut one = Server::new(&world, "web-1", &[]).await;
    let mut two = Server::new(&world, "web-2", &[]).await;
    publish_plan(&world, "1.0", PLAN).await;
    let mut admin = world.admin().await;
    admin.apply_environments(apply(FILE)).await.unwrap();
    let mut asked = start("1.0", &[]);
    asked.settings.as_mut().unwrap().failures = Some(0);
    let begun = admin.start_rollout(asked).await.unwrap().into_inner();
    let frozen = begun.settings.clone().unwrap();
    assert_eq!(frozen.waves, ["1", "100%"]);
    assert_eq!((frozen.bake_ms, frozen.failures), (Some(300_000), Some(0)));
    assert_eq!((frozen.on_stop.as_deref(), frozen.confirm_ms), (Some("rollback"), Some(480_000)));

    let order = one.order().await;
    assert!(matches!(order.order, OrderKind::Deploy { confirm_ms: Some(480_000), .. }), "{order:?}");
    one.accept(&order).await;
    let until_ms = SystemClock.now().plus(Duration::from_secs(480));
    let confirming = Event::Confirming { boot_id: "b".into(), deadline_boot_ms: 1, deadline: until_ms };
    one.tell(&order, &confirming).await;
    let baking = until(&world, &begun.id, |it| it.stage == "baking").await;
    assert!(baking.because.starts_with("waiting for wave 2 of 2: bake "), "{}", baking.because);
    assert!(baking.deadline_ms > SystemClock.now().0);
    assert_eq!(baking.deployments[0].confirm_until_ms, until_ms.0);
    assert!(baking.deployments[0].because.contains("returns by itself"), "{:?}", baking.deployments[0]);

    // What is applied now is for those to come.
    admin.apply_environments(apply("[environment.staging]\n")).await.unwrap();
    world.clock.advance(Duration::from_secs(301));
    // The clock that keeps time looks again at the latest after a minute of ours: a pause wakes it.
    let pause = v1::PauseRolloutRequest { rollout: begun.id.clone(), reason: "x".into() };
    admin.pause_rollout(pause).await.unwrap();
    let resume = v1::ResumeRolloutRequest { rollout: begun.id.clone(), reason: "x".into() };
    admin.resume_rollout(resume).await.unwrap();
    let confirm = one.order().await;
    assert!(matches!(confirm.order, OrderKind::Confirm {}), "{confirm:?}");
    one.tell(&order, &Event::Confirmed { order: confirm.id }).await;
    one.end(&order, DeploymentOutcome::Succeeded { tolerated: Vec::new() }).await;
    let order = two.order().await;
    two.accept(&order).await;
    two.end(&order, DeploymentOutcome::Stopped { because: "step healthy: 503".into() }).await;
    // On one server there is nothing before, but the rollout that brings them back is begun all the same.
    let stopped = until(&world, &begun.id, |it| it.ended_ms > 0).await;
    assert_eq!(stopped.state, "stopped");
    assert_eq!(stopped.rolled_back_by.len(), 32, "{stopped:?}");
    let hold = stopped.hold.unwrap();
    assert_eq!((hold.app.as_str(), hold.who.as_str()), ("shop", ""));

    let env = shown(&mut admin).await;
    assert_eq!(env.holds.len(), 1);
    let lift = v1::LiftHoldRequest {
        app: "shop".into(),
        environment: "staging".into(),
        reason: "1.1 has the fix".into(),
    };
    assert!(
        admin.lift_hold(lift.clone()).await.unwrap().into_inner().because.contains("rolled back from 1.0")
    );
    let again = admin.lift_hold(lift).await.unwrap_err();
    assert!(again.message().starts_with("no-hold: "), "{again:?}");
    let env = shown(&mut admin).await;
    let last = env.history.last().unwrap();
    assert_eq!((last.what.as_str(), last.because.as_str()), ("lift hold on shop", "1.1 has the fix"));
    assert!(env.holds.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_before_any_server_hears_of_it() {
    let world = World::new().await;
    let zones = [("zone", "a")];
    let _one = Server::new(&world, "web-1", &zones).await;
    let _two = Server::new(&world, "web-2", &zones).await;
    let _three = Server::new(&world, "web-3", &zones).await;
    publish_plan(&world, "1.0", PLAN).await;
    publish_plan(&world, "2.0", "app = \"shop\"\n[[step]]\nname = \"activate\"\nactivate = true\n").await;
    let mut admin = world.admin().await;
    type Change = fn(&mut v1::StartRolloutRequest);
    fn settings(request: &mut v1::StartRolloutRequest) -> &mut v1::Settings {
        request.settings.as_mut().unwrap()
    }
    let cases: &[(&str, Change)] = &[
        ("do not add up", |it| settings(it).waves = vec!["1".into(), "2".into()]),
        ("no fleet is ever reached whole", |it| settings(it).waves = vec!["1".into(), "50%".into()]),
        ("reaches no server", |it| settings(it).waves = vec!["0%".into()]),
        ("no server of staging matches", |it| it.selector = "role=nothing".into()),
        ("there is no server web-9", |it| it.selector = "web-9".into()),
        ("no server is a canary", |it| settings(it).canary = Some("role=canary".into())),
        ("is more than the 3 servers", |it| settings(it).failures = Some(4)),
        ("is more than the 3 servers", |it| {
            settings(it).group = Some(v1::GroupBudget { label: "zone".into(), failures: 4 });
        }),
        ("no server has the label", |it| {
            settings(it).group = Some(v1::GroupBudget { label: "rack".into(), failures: 0 });
        }),
        ("leaves none to deploy to", |it| settings(it).min_healthy = Some("100%".into())),
        ("a number, as 2, or a percentage", |it| settings(it).min_healthy = Some("half".into())),
        ("may only be shortened", |it| settings(it).confirm_ms = Some(660_000)),
        ("a server would wait 10m00s for its confirmation", |it| settings(it).bake_ms = Some(600_000)),
        ("nothing to shorten", |it| {
            it.version = "2.0".into();
            settings(it).confirm_ms = Some(60_000);
        }),
        ("has passed", |it| it.not_before_ms = 1),
        ("the plan has no step warm", |it| it.skip_steps = vec!["warm".into()]),
        ("there is no artifact shop@9", |it| it.version = "9".into()),
        ("there is no plan", |it| it.plan = "9f".repeat(32)),
        ("offline is fail, owe or wait", |it| settings(it).offline = Some("later".into())),
        ("is no address of http", |it| {
            settings(it).health = Some(v1::HealthCheck {
                url: "https://shop/".into(),
                status: 200,
                within_ms: 1000,
                ..Default::default()
            });
        }),
    ];
    let mut told = Vec::new();
    for (word, change) in cases {
        let mut request = start("1.0", &[]);
        change(&mut request);
        match admin.start_rollout(request.clone()).await {
            Ok(begun) => told.push(format!("{word}: it began: {:?}", begun.into_inner().id)),
            Err(status) if !status.message().contains(word) => told.push(format!("{word}: {status:?}")),
            Err(status) if status.code() == Code::Internal => told.push(format!("{word}: {status:?}")),
            Err(_) => {}
        }
    }
    assert!(told.is_empty(), "{told:#?}");
    let all = admin.list_rollouts(v1::ListRolloutsRequest::default()).await.unwrap().into_inner();
    assert!(all.rollouts.is_empty(), "{:?}", all.rollouts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_begins_at_its_time_and_queues_as_it_is_told() {
    let world = World::new().await;
    let mut one = Server::new(&world, "web-1", &[]).await;
    publish_plan(&world, "1.0", PLAN).await;
    publish_plan(&world, "1.1", PLAN).await;
    let mut admin = world.admin().await;
    let at = SystemClock.now().plus(Duration::from_secs(3600)).0;
    let later = v1::StartRolloutRequest { not_before_ms: at, ..start("1.0", &[]) };
    let later = admin.start_rollout(later).await.unwrap().into_inner();
    assert_eq!((later.state.as_str(), later.deadline_ms), ("queued", at));
    assert!(later.because.starts_with("begins in "), "{}", later.because);

    let running = admin.start_rollout(start("1.1", &[])).await.unwrap().into_inner();
    assert_eq!(running.state, "running");
    let order = one.order().await;
    let queued = |queue: &str| {
        let mut request = start("1.0", &[]);
        request.settings.as_mut().unwrap().queue = Some(queue.into());
        request
    };
    let refused: Status = admin.start_rollout(queued("refuse")).await.unwrap_err();
    assert!(refused.message().starts_with("busy: "), "{refused:?}");
    let waits = admin.start_rollout(queued("supersede")).await.unwrap().into_inner();
    assert_eq!(waits.state, "queued");
    assert_eq!(until(&world, &later.id, |it| it.ended_ms > 0).await.state, "aborted", "superseded");
    one.succeed(&order).await;
    until(&world, &waits.id, |it| it.state == "running").await;
}
