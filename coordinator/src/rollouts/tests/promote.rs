//! Candidates through the store: begun once, held, refused and tried again, and what agents say of `rearm`.

use std::{collections::BTreeMap, sync::Arc};

use consign_common::name::{Environment, Id};

use super::*;
use crate::{
    candidates::{self, PIPELINE, Query, Standing, Which},
    environments,
    fleet::{NewServer, Registry},
    pipeline::{Verdict, Wait},
};

const AUTOMATIC: &str =
    "[environment.production]\ndeploy = \"on-publish\"\n[environment.gated]\ndeploy = \"on-publish\"\n";

impl Fixture {
    async fn apply(&self, text: &str) {
        let all = environments::parse(text, "e.toml").unwrap();
        let mut write = self.store.write().await.unwrap();
        environments::store::apply(&mut write, &all, "ann", self.now()).await.unwrap();
        write.commit().await.unwrap();
    }

    /// As if it were signed anew at this millisecond.
    async fn publish(&self, version: &str, ms: i64) {
        let mut write = self.store.write().await.unwrap();
        sqlx::query("UPDATE artifacts SET ms = ? WHERE version = ?")
            .bind(ms)
            .bind(version)
            .execute(&mut *write)
            .await
            .unwrap();
        candidates::published(&mut write, self.digest(version), self.now()).await.unwrap();
        write.commit().await.unwrap();
    }

    async fn candidates(&self, environment: &str) -> Vec<Waiting> {
        let environment = Some(environment.parse().unwrap());
        let query = Query { environment, which: Which::All, ..Query::default() };
        self.controller.candidates(&query).await.unwrap()
    }

    /// What the one candidate there waits for.
    async fn waits(&self, environment: &str) -> Wait {
        match &self.candidates(environment).await[..] {
            [Waiting { verdict: Some(Verdict::Waits(wait)), .. }] => wait.clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn rollouts(&self, environment: &str) -> Vec<(String, String)> {
        let environment: Environment = environment.parse().unwrap();
        let all = self.controller.list(None, Some(&environment), 0).await.unwrap();
        all.into_iter().rev().map(|it| (it.row.version.to_string(), it.row.started_by)).collect()
    }

    async fn enrol(&self, server: &str, environment: &str) {
        let new = NewServer {
            name: server.parse().unwrap(),
            uid: Id::from_bytes([9; 16]),
            environment: environment.parse().unwrap(),
            labels: BTreeMap::new(),
            agent_version: "0".into(),
        };
        let mut write = self.store.write().await.unwrap();
        Registry::enrol(&mut write, &new, self.now()).await.unwrap();
        write.commit().await.unwrap();
    }

    async fn hold(&self, environment: &str) -> Hold {
        let (app, environment) = ("shop".parse().unwrap(), environment.parse().unwrap());
        self.controller.hold(&app, &environment, "the warehouse moves", "ann").await.unwrap()
    }
}

fn by_the_pipeline(versions: &[&str]) -> Vec<(String, String)> {
    versions.iter().map(|version| ((*version).to_owned(), PIPELINE.to_owned())).collect()
}

#[tokio::test]
async fn whoever_looks_at_once_begins_it_once() {
    let fixture = Fixture::new(&["web-1"]).await;
    fixture.apply(AUTOMATIC).await;
    let mut agent = fixture.connect("web-1").await;
    fixture.publish("1", 100).await;
    let (one, two, three) = tokio::join!(
        fixture.controller.promote(),
        fixture.controller.promote(),
        fixture.controller.promote()
    );
    for looked in [one, two, three] {
        assert_eq!(looked.unwrap(), None);
    }
    assert_eq!(fixture.rollouts("production").await, by_the_pipeline(&["1"]));
    // The same publication makes no other one, while it runs and after it.
    fixture.publish("1", 100).await;
    fixture.controller.promote().await.unwrap();
    let order = agent.order().await;
    agent.accept(&order).await;
    agent.end(&order, succeeded()).await;
    fixture.publish("1", 100).await;
    fixture.controller.promote().await.unwrap();
    assert_eq!(fixture.rollouts("production").await.len(), 1);
    // Signed anew, it is one more.
    fixture.publish("1", 101).await;
    fixture.controller.promote().await.unwrap();
    assert_eq!(fixture.rollouts("production").await, by_the_pipeline(&["1", "1"]));
}

#[tokio::test]
async fn what_happens_after_the_look_counts_where_it_begins() {
    let fixture = Fixture::new(&["web-1"]).await;
    fixture.apply(AUTOMATIC).await;
    fixture.publish("2", 100).await;
    let number = fixture.candidates("production").await[0].row.number;
    let chosen = Some(Chosen { number, digest: fixture.digest("2") });
    // A hold, put after it was found that nothing keeps it.
    fixture.hold("production").await;
    let request = || StartRequest { candidate: chosen, ..fixture.request(&[]) };
    let held = fixture.controller.start(request()).await;
    assert!(matches!(held, Err(NotStarted::OnHold { .. })), "{held:?}");
    let about = ("shop".parse().unwrap(), "production".parse().unwrap());
    fixture.controller.lift_hold(&about.0, &about.1, "moved", "ann").await.unwrap();
    // A veto.
    let version = "2".parse().unwrap();
    fixture.controller.veto((&about.0, &about.1, &version), "no", "ann").await.unwrap();
    let vetoed = fixture.controller.start(request()).await;
    assert!(matches!(vetoed, Err(NotStarted::NotWaiting { .. })), "{vetoed:?}");
    assert!(fixture.rollouts("production").await.is_empty());
    // Other bytes under the same version.
    let other = Some(Chosen { number, digest: fixture.digest("1") });
    let other = fixture.controller.start(StartRequest { candidate: other, ..fixture.request(&[]) }).await;
    assert!(matches!(other, Err(NotStarted::OtherPlatform { .. })), "{other:?}");
}

#[tokio::test]
async fn what_was_refused_is_told_and_tried_again() {
    let fixture = Fixture::new(&[]).await;
    fixture.apply(AUTOMATIC).await;
    fixture.publish("1", 100).await;
    fixture.publish("2", 200).await;
    fixture.controller.promote().await.unwrap();
    for waiting in fixture.candidates("production").await {
        let Some(Verdict::Waits(Wait::Refused { why })) = waiting.verdict else { panic!("{waiting:?}") };
        assert_eq!(why, "no-server: no server of production matches");
    }
    fixture.enrol("web-1", "production").await;
    fixture.controller.promote().await.unwrap();
    // The older one has begun, the newer one waits for it.
    assert_eq!(fixture.rollouts("production").await, by_the_pipeline(&["1"]));
    let newest = &fixture.candidates("production").await[0];
    assert!(matches!(&newest.verdict, Some(Verdict::Waits(Wait::Rollout { .. }))), "{newest:?}");
}

/// A person starts it on all servers, and so it has begun; on some of them, and it waits still.
#[tokio::test]
async fn what_a_person_starts_has_begun() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    fixture.apply(AUTOMATIC).await;
    fixture.hold("production").await;
    fixture.publish("2", 100).await;
    fixture.start_of("shop", "2", "production", "web-1").await.unwrap();
    assert_eq!(fixture.candidates("production").await[0].row.standing, Standing::Waiting);
    let request = StartRequest { again: Again::Force, queueing: Queueing::Queue, ..fixture.request(&[]) };
    let started = fixture.controller.start(request).await.unwrap().row.id;
    let row = &fixture.candidates("production").await[0].row;
    assert_eq!((row.standing, row.rollout.as_ref()), (Standing::Started, Some(&started)));
    assert_eq!(row.settled.as_ref().unwrap().by, "ann");
}

#[tokio::test]
async fn it_begins_when_its_gate_is_met() {
    let fixture = Fixture::gated(&["web-1"]).await;
    fixture.apply(AUTOMATIC).await;
    fixture.publish("2", 100).await;
    assert!(matches!(fixture.waits("gated").await, Wait::Gate { .. }));
    // A plan that nobody has: nothing could be held to it.
    fixture.approve("2", "gated", Some(Sha256::of(b"a plan"))).await;
    fixture.controller.promote().await.unwrap();
    let Wait::Gate { missing } = fixture.waits("gated").await else {
        panic!("it does not wait for the gate")
    };
    assert!(missing.contains("approved is the plan"), "{missing}");
    fixture.approve("2", "gated", None).await;
    fixture.controller.promote().await.unwrap();
    assert_eq!(fixture.rollouts("gated").await, by_the_pipeline(&["2"]));
}

/// What did not succeed re-arms the gate here as on the server; what succeeds ends that.
#[tokio::test]
async fn rearm_is_known_when_the_deployment_has_ended() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut agent = fixture.connect("web-1").await;
    let registry = Registry::new(Arc::clone(&fixture.store));
    let failed = async || {
        let apps: BTreeMap<_, _> = registry.get(&"web-1".parse().unwrap()).await.unwrap().apps;
        apps.into_values().next().and_then(|report| report.failed)
    };
    fixture.start(&[]).await.unwrap();
    let order = agent.order().await;
    agent.accept(&order).await;
    assert_eq!(failed().await, None);
    let returned = DeploymentOutcome::Failed { because: "exit 1".into() };
    agent.end(&order, returned).await;
    assert!(failed().await.is_some());
    let request = StartRequest { again: Again::Force, ..fixture.request(&[]) };
    fixture.controller.start(request).await.unwrap();
    let order = agent.order().await;
    agent.accept(&order).await;
    agent.end(&order, succeeded()).await;
    assert_eq!(failed().await, None);
}
