//! What servers would do, before anything is touched: every one is asked to judge the order and to evaluate every
//! condition against its own facts. What they determine has a digest, by which a rollout can be held to it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use consign_common::{
    digest::Sha256,
    name::{App, Environment, ServerName, StepName, Version},
    time::UnixMs,
    trust::{Foreseen, ORDER_FORMAT, Order, OrderKind, PlanDocument, Planned, PlannedStep},
};
use tokio::time::{Instant, timeout_at};

use super::{
    admission::{self, NotStarted},
    controller::Controller,
    orders::fresh_id,
    rows::{Again, Pinned},
    store,
};
use crate::{
    config,
    fleet::{Decision, Foreseeing, Papers, Prospect, Question, Selector, Server},
};

/// How long servers are given to answer, all together.
const ANSWER: Duration = Duration::from_secs(20);
/// Previews that are kept.
const KEEP: u32 = 200;
/// After this long a preview says nothing about now any more.
const OLD: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug)]
pub struct PreviewRequest {
    pub app: App,
    pub version: Version,
    pub environment: Environment,
    pub selector: Selector,
    pub again: Again,
    /// Steps that are left out on every server.
    pub skip: Vec<StepName>,
}

#[derive(Clone, Debug)]
pub struct Preview {
    /// `None`: no server said anything that a rollout could be held to.
    pub digest: Option<Sha256>,
    pub app: App,
    pub version: Version,
    pub environment: Environment,
    pub artifact: Sha256,
    pub made: UnixMs,
    /// By name.
    pub servers: BTreeMap<ServerName, Foretold>,
}

/// What is known of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foretold {
    Answered(Prospect),
    Disabled {
        because: String,
    },
    NotConnected,
    /// It was asked, and did not answer in time.
    Silent,
}

impl Controller {
    /// Asks every server. Nothing is begun, here or there.
    pub async fn preview(self: &Arc<Self>, request: PreviewRequest) -> Result<Preview, NotStarted> {
        let PreviewRequest { app, version, environment, selector, again, skip } = request;
        let now = self.clock.now();
        admission::check_behind(self.store.read(), &app, &environment).await?;
        let root = self.trust_roots.newest();
        admission::check_trust(&root, &app, &environment, now)?;
        let stocked = self.repository.of_version(&app, &version).await?;
        let chosen = admission::select(self.registry.list().await?, &environment, &selector)?;
        let artifact = admission::choose(&stocked, &chosen, &app, &version)?;
        admission::check_revoked(&root, artifact)?;
        let rollout = fresh_id()?;
        let bytes = self.repository.manifest(artifact).await?;
        let own = admission::read_plan(&bytes)?;
        let in_force = self.configured(&app, &environment, &own, &chosen).await?;
        let statements =
            config::among(in_force.as_ref(), self.evidence(&environment, artifact, &rollout).await?);
        let reviewed = admission::review(&root, &environment, &bytes, &statements, None, now)?;
        admission::check_skips(&reviewed.plan, &skip)?;
        let config = Some(reviewed.config.digest()).filter(|_| reviewed.config.sequence > 0);

        let term = store::term(self.store.read(), &app, &environment).await?.saturating_add(1);
        let until = Instant::now() + ANSWER;
        let mut waiting = Vec::new();
        let mut servers = BTreeMap::new();
        for server in chosen {
            if let Some(because) = server.kept_out() {
                servers.insert(server.name, Foretold::Disabled { because });
                continue;
            }
            let order = Order {
                format: ORDER_FORMAT.to_owned(),
                id: fresh_id()?,
                coordinator: self.coordinator.clone(),
                server: server.name.clone(),
                environment: environment.clone(),
                app: app.clone(),
                rollout: rollout.clone(),
                deployment: fresh_id()?,
                term,
                issued: now,
                order: OrderKind::Deploy {
                    manifest: artifact,
                    force: again == Again::Force,
                    skip: skip.clone(),
                    plan: BTreeMap::new(),
                    confirm_ms: None,
                    converge: false,
                },
            };
            let sealed = match &in_force {
                Some(in_force) => in_force.for_server(self.store.read(), &server.name).await?.sealed,
                None => Vec::new(),
            };
            let question = Question {
                papers: Papers {
                    document: order.to_vec(),
                    statements: statements.clone(),
                    sealed,
                    ..Papers::default()
                },
                manifest: artifact,
            };
            match self.sessions.ask(&server.name, order.id, question) {
                Some(answer) => waiting.push((server.name, answer)),
                None => drop(servers.insert(server.name, Foretold::NotConnected)),
            }
        }
        for (server, answer) in waiting {
            let foretold = match timeout_at(until, answer).await {
                Ok(Ok(prospect)) => Foretold::Answered(prospect),
                Ok(Err(_)) => Foretold::NotConnected,
                Err(_) => Foretold::Silent,
            };
            servers.insert(server, foretold);
        }
        let document = document(artifact, config, &servers);
        let digest = document.as_ref().map(PlanDocument::digest);
        let made = self.clock.now();
        let preview = Preview { digest, app, version, environment, artifact, made, servers };
        if let Some(document) = document {
            self.keep(&preview, &document).await?;
        }
        Ok(preview)
    }

    async fn keep(&self, preview: &Preview, document: &PlanDocument) -> Result<(), NotStarted> {
        let digest = document.digest();
        let plan = admission::read_plan(&self.repository.manifest(preview.artifact).await?)?;
        let steps: Vec<StepName> = plan.steps.into_iter().map(|step| step.name).collect();
        let row = store::PreviewRow {
            digest,
            app: preview.app.clone(),
            environment: preview.environment.clone(),
            artifact: preview.artifact,
            made: preview.made,
            servers: determined(&preview.servers, &steps),
        };
        let mut write = self.store.write().await?;
        store::put_preview(&mut write, &row, &document.to_vec(), KEEP).await?;
        Ok(write.commit().await?)
    }

    /// What these servers are held to by the preview of this digest.
    pub(super) async fn pin(
        &self,
        digest: Sha256,
        app: &App,
        environment: &Environment,
        artifact: Sha256,
        chosen: &[Server],
    ) -> Result<Pinned, NotStarted> {
        let oldest = UnixMs(self.clock.now().0.saturating_sub(u64::try_from(OLD.as_millis()).unwrap_or(0)));
        let mut rows = store::previews(self.store.read(), digest).await?;
        rows.retain(|row| row.made >= oldest);
        let fits = |row: &store::PreviewRow| {
            row.app == *app && row.environment == *environment && row.artifact == artifact
        };
        let Some(place) = rows.iter().position(fits) else {
            let Some(other) = rows.pop() else { return Err(NotStarted::PlanUnknown { digest }) };
            let of = |app: &App, artifact: Sha256, environment: &Environment| {
                let artifact = artifact.to_string();
                format!("{app} ({}) in {environment}", artifact.get(..12).unwrap_or(&artifact))
            };
            let foreseen = of(&other.app, other.artifact, &other.environment);
            return Err(NotStarted::PlanOfOther { digest, foreseen, given: of(app, artifact, environment) });
        };
        let row = rows.swap_remove(place);
        let enabled = chosen.iter().filter(|server| server.kept_out().is_none());
        let missing: Vec<&str> = enabled
            .filter(|server| !row.servers.contains_key(&server.name))
            .map(|server| server.name.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(NotStarted::PlanWithout { digest, servers: missing.join(", ") });
        }
        Ok(Pinned { digest, servers: row.servers })
    }
}

/// What a rollout can be held to: servers that would take the order, and the steps that nothing can change until then.
fn determined(
    servers: &BTreeMap<ServerName, Foretold>,
    plan: &[StepName],
) -> BTreeMap<ServerName, BTreeMap<StepName, Foreseen>> {
    let mut all = BTreeMap::new();
    for (server, foretold) in servers {
        let steps = match foretold {
            Foretold::Answered(Prospect::Steps { steps, .. }) => steps
                .iter()
                .filter_map(|foreseeing| {
                    let foreseen = match foreseeing.decision {
                        Decision::Run => Foreseen::Run,
                        Decision::Skip { .. } => Foreseen::Skip,
                        Decision::Undetermined { .. } => return None,
                    };
                    Some((foreseeing.step.clone(), foreseen))
                })
                .collect(),
            // It runs the artifact already: if it has anything to do after all, that is not what was shown.
            Foretold::Answered(Prospect::NoOp { .. }) => {
                plan.iter().map(|step| (step.clone(), Foreseen::Skip)).collect()
            }
            Foretold::Answered(Prospect::Refused { .. })
            | Foretold::Disabled { .. }
            | Foretold::NotConnected
            | Foretold::Silent => continue,
        };
        all.insert(server.clone(), steps);
    }
    all
}

/// What servers said that they would do, in the form in which it can be approved: servers that did not answer, or would
/// refuse, have no part in it. `None` where none has.
fn document(
    artifact: Sha256,
    config: Option<Sha256>,
    servers: &BTreeMap<ServerName, Foretold>,
) -> Option<PlanDocument> {
    let planned = |foretold: &Foretold| match foretold {
        Foretold::Answered(Prospect::Steps { steps, .. }) => {
            let step = |foreseeing: &Foreseeing| {
                let planned = match foreseeing.decision {
                    Decision::Run => PlannedStep::Run,
                    Decision::Skip { .. } => PlannedStep::Skip,
                    Decision::Undetermined { .. } => PlannedStep::Undetermined,
                };
                (foreseeing.step.clone(), planned)
            };
            Some(Planned::Steps(steps.iter().map(step).collect()))
        }
        Foretold::Answered(Prospect::NoOp { .. }) => Some(Planned::NoOp),
        Foretold::Answered(Prospect::Refused { .. })
        | Foretold::Disabled { .. }
        | Foretold::NotConnected
        | Foretold::Silent => None,
    };
    let servers: BTreeMap<ServerName, Planned> =
        servers.iter().filter_map(|(name, foretold)| Some((name.clone(), planned(foretold)?))).collect();
    (!servers.is_empty()).then_some(PlanDocument { artifact, config, servers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(decision: Decision) -> Foretold {
        let step = Foreseeing { step: "migrate".parse().unwrap(), kind: "run".into(), decision };
        Foretold::Answered(Prospect::Steps { steps: vec![step], held: None })
    }

    fn of(servers: &[(&str, Foretold)]) -> Option<Sha256> {
        let servers = servers.iter().map(|(name, it)| (name.parse().unwrap(), it.clone())).collect();
        document(Sha256::of(b"artifact"), None, &servers).map(|document| document.digest())
    }

    #[test]
    fn the_digest_is_of_decisions_and_not_of_their_reasons() {
        let skip = |because: &str| steps(Decision::Skip { because: because.into() });
        let one = of(&[("web-1", steps(Decision::Run)), ("web-2", skip("a"))]);
        assert_eq!(one, of(&[("web-2", skip("b")), ("web-1", steps(Decision::Run))]));
        assert_ne!(one, of(&[("web-1", skip("a")), ("web-2", steps(Decision::Run))]));
        assert_ne!(one, of(&[("web-1", steps(Decision::Run))]));
        assert_eq!(of(&[("web-1", Foretold::NotConnected), ("web-2", Foretold::Silent)]), None);
        let text = format!(
            "consign-plan-v1\nartifact {}\nconfig none\nweb-1 migrate run\nweb-2 migrate skip\n",
            Sha256::of(b"artifact")
        );
        assert_eq!(one, Some(Sha256::of(text.as_bytes())));
    }
}
