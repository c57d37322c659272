//! What operators ask of candidates.

use consign_common::{
    audit::About,
    name::{App, Environment, Version},
};
use consign_proto::v1;
use tonic::Status;

use super::{
    Caller, EnvironmentService,
    answer::{invalid, reason},
    environments::hold,
};
use crate::{
    audit,
    candidates::{self, Query, Which},
    pipeline::Verdict,
    rollouts::Waiting,
};

impl EnvironmentService {
    pub(super) async fn list_candidates(
        &self,
        request: v1::ListCandidatesRequest,
    ) -> Result<v1::ListCandidatesResponse, Status> {
        let query = Query {
            app: optional(&request.app)?,
            environment: optional(&request.environment)?,
            digest: optional(&request.digest)?,
            which: if request.settled { Which::All } else { Which::Waiting },
        };
        let found = self.controller.candidates(&query).await?;
        Ok(v1::ListCandidatesResponse { candidates: found.into_iter().map(candidate).collect() })
    }

    pub(super) async fn candidates_waiting(&self) -> Result<u32, Status> {
        Ok(candidates::waiting_count(self.store.read()).await?)
    }

    pub(super) async fn veto(
        &self,
        caller: &Caller,
        request: v1::VetoCandidateRequest,
    ) -> Result<v1::Candidate, Status> {
        let app: App = request.app.parse().map_err(invalid)?;
        let version: Version = request.version.parse().map_err(invalid)?;
        let environment: Environment = request.environment.parse().map_err(invalid)?;
        let (why, by) = (reason(&request.reason)?, caller.identity.to_string());
        audit::note(|act| {
            act.about(About::App, &app).about(About::Version, &version);
            act.about(About::Environment, &environment).because(&why);
        });
        caller.check_app(&app)?;
        let row = self.controller.veto((&app, &environment, &version), &why, &by).await?;
        // Something older may have waited for its turn.
        self.controller.reconsider();
        Ok(candidate(Waiting { row, verdict: None }))
    }

    pub(super) async fn hold(
        &self,
        caller: &Caller,
        request: v1::HoldEnvironmentRequest,
    ) -> Result<v1::Hold, Status> {
        let app: App = request.app.parse().map_err(invalid)?;
        let environment: Environment = request.environment.parse().map_err(invalid)?;
        let (why, by) = (reason(&request.reason)?, caller.identity.to_string());
        audit::note(|act| {
            act.about(About::App, &app).about(About::Environment, &environment).because(&why);
        });
        caller.check_app(&app)?;
        let root = self.trust_roots.newest();
        if !root.environments.contains_key(&environment) {
            return Err(super::environments::unknown_environment(&environment));
        }
        if !root.apps.contains_key(&app) {
            return Err(Status::failed_precondition(format!(
                "app-unknown: the trust root does not name {app}"
            )));
        }
        Ok(hold(&self.controller.hold(&app, &environment, &why, &by).await?))
    }
}

pub(super) fn candidate(waiting: Waiting) -> v1::Candidate {
    let Waiting { row, verdict } = waiting;
    let (waits_for, because, until) = match &verdict {
        Some(Verdict::Waits(wait)) => (wait.as_str(), wait.to_string(), wait.until()),
        Some(Verdict::Start) => ("", "it is about to begin".to_owned(), None),
        Some(Verdict::Superseded(by)) => ("", by.to_string(), None),
        None => ("", row.settled.as_ref().map(|settled| settled.because.clone()).unwrap_or_default(), None),
    };
    let (after, source) = match row.green {
        Some((environment, rollout)) => (environment.into(), rollout.to_string()),
        None => (String::new(), String::new()),
    };
    let (settled_by, settled_ms) =
        row.settled.map_or((String::new(), 0), |settled| (settled.by, settled.at.0));
    v1::Candidate {
        app: row.app.into(),
        version: row.version.into(),
        platform: row.platform.map(String::from).unwrap_or_default(),
        digest: row.digest.into(),
        environment: row.environment.into(),
        published_ms: row.published.ms.0,
        since_ms: row.since.0,
        after,
        source,
        state: row.standing.as_str().to_owned(),
        waits_for: waits_for.to_owned(),
        because,
        until_ms: until.map_or(0, |until| until.0),
        rollout: row.rollout.map(|id| id.to_string()).unwrap_or_default(),
        settled_by,
        settled_ms,
    }
}

fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Option<T>, Status> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(invalid),
    }
}
