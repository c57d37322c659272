//! What operators ask of rollouts: wire to domain and back.

use std::sync::Arc;

use consign_common::{name::ServerName, time::UnixMs};
use consign_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Status;

use super::{
    Answers, Caller, Role, Rollouts,
    answer::{invalid, refused},
    view,
};
use crate::{
    fleet::Sessions,
    rollout::{Kind, Member, Strategy, Verb},
    rollouts::{
        Again, Controller, FollowError, Followed, LogPart, LogQuery, NotStarted, Output, Queueing,
        RollbackOf, RollbackRequest, Shown, StartRequest, StepView, Until, Update,
    },
};

/// Characters of a reason that an operator gives.
const REASON: usize = 500;
/// Waves of a rollout: nobody wrote more by hand.
const WAVES: usize = 100;

#[derive(Clone, Debug)]
pub struct RolloutService {
    pub controller: Arc<Controller>,
    pub sessions: Arc<Sessions>,
}

#[tonic::async_trait]
impl Rollouts for RolloutService {
    async fn start(&self, caller: &Caller, request: v1::StartRolloutRequest) -> Result<v1::Rollout, Status> {
        if request.waves.len() > WAVES {
            return Err(invalid(format!("more than {WAVES} waves")));
        }
        let request = StartRequest {
            app: request.app.parse().map_err(invalid)?,
            version: request.version.parse().map_err(invalid)?,
            environment: request.environment.parse().map_err(invalid)?,
            waves: request.waves,
            canary: None,
            selector: request.selector.parse().map_err(invalid)?,
            selector_text: request.selector,
            strategy: Strategy::default(),
            min_healthy: None,
            confirm_ms: None,
            queueing: Queueing::default(),
            not_before: UnixMs(0),
            skip: Vec::new(),
            pinned: None,
            reason: String::new(),
            again: if request.force { Again::Force } else { Again::LeaveAlone },
            by: caller.identity.to_string(),
        };
        Ok(rollout(&self.controller.start(request).await?))
    }

    async fn rollback(&self, caller: &Caller, request: v1::RollbackRequest) -> Result<v1::Rollout, Status> {
        let of = if request.rollout.is_empty() {
            RollbackOf::Newest {
                app: request.app.parse().map_err(invalid)?,
                environment: request.environment.parse().map_err(invalid)?,
            }
        } else {
            RollbackOf::Rollout(request.rollout)
        };
        let request = RollbackRequest {
            of,
            selector: request.selector.parse().map_err(invalid)?,
            waves: Vec::new(),
            reason: reason(&request.reason)?,
            by: caller.identity.to_string(),
        };
        Ok(rollout(&self.controller.rollback(request).await?))
    }

    /// CI may end what it began; the rest is for deployers.
    async fn abort(&self, caller: &Caller, request: v1::AbortRolloutRequest) -> Result<v1::Rollout, Status> {
        let by = caller.identity.to_string();
        if caller.role == Role::Ci {
            let started_by = self.controller.show(&request.rollout).await?.row.started_by;
            if started_by != by {
                return Err(Status::failed_precondition(format!(
                    "{started_by} started it, and the role ci aborts only what it started itself"
                )));
            }
        }
        let shown =
            self.controller.press(&request.rollout, Verb::Abort, &reason(&request.reason)?, &by).await?;
        Ok(rollout(&shown))
    }

    async fn list(&self, request: v1::ListRolloutsRequest) -> Result<v1::ListRolloutsResponse, Status> {
        let app = optional(&request.app)?;
        let environment = optional(&request.environment)?;
        let shown = self.controller.list(app.as_ref(), environment.as_ref(), request.limit).await?;
        Ok(v1::ListRolloutsResponse { rollouts: shown.iter().map(rollout).collect() })
    }

    async fn show(&self, request: v1::ShowRolloutRequest) -> Result<v1::Rollout, Status> {
        Ok(rollout(&self.controller.show(&request.rollout).await?))
    }

    async fn follow(&self, request: v1::FollowRolloutRequest) -> Result<Answers<v1::FollowEvent>, Status> {
        let output = if request.logs { Output::With } else { Output::Without };
        let items = self.controller.follow(&request.rollout, request.cursor, output).await?;
        Ok(answers(items, followed))
    }

    async fn read_logs(&self, request: v1::ReadLogsRequest) -> Result<Answers<v1::LogPart>, Status> {
        let query = LogQuery {
            rollout: request.rollout,
            server: optional(&request.server)?,
            step: Some(request.step).filter(|step| !step.is_empty()),
            since: request.since,
            until: if request.follow { Until::TheEnd } else { Until::Now },
        };
        let parts = self.controller.read_logs(query).await?;
        Ok(answers(parts, log_part))
    }

    async fn active(&self) -> Result<u32, Status> {
        Ok(u32::try_from(self.controller.active().await?).unwrap_or(u32::MAX))
    }

    async fn behind(&self) -> Result<Vec<v1::Behind>, Status> {
        let behind = self.controller.behind().await.map_err(NotStarted::from)?;
        Ok(behind.into_iter().map(view::behind).collect())
    }

    async fn take_over(
        &self,
        caller: &Caller,
        request: v1::TakeOverRequest,
    ) -> Result<v1::TakeOverResponse, Status> {
        let (app, environment) =
            (request.app.parse().map_err(invalid)?, request.environment.parse().map_err(invalid)?);
        let reason = reason(&request.reason)?;
        if reason.trim().is_empty() {
            return Err(invalid("a coordinator takes over for a reason"));
        }
        let by = caller.identity.to_string();
        let (behind, term) = self.controller.take_over(&app, &environment, &reason, &by).await?;
        Ok(v1::TakeOverResponse { behind: Some(view::behind(behind)), term })
    }

    fn is_online(&self, server: &ServerName) -> bool {
        self.sessions.is_online(server)
    }
}

fn answers<T: Send + 'static, W: Send + 'static>(
    items: mpsc::Receiver<Result<T, FollowError>>,
    to_wire: fn(T) -> W,
) -> Answers<W> {
    Box::pin(ReceiverStream::new(items).map(move |item| item.map(to_wire).map_err(Status::from)))
}

fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Option<T>, Status> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(invalid),
    }
}

fn reason(text: &str) -> Result<String, Status> {
    if text.chars().count() > REASON || text.chars().any(char::is_control) {
        return Err(invalid(format!("a reason is one line of at most {REASON} characters")));
    }
    Ok(text.to_owned())
}

fn rollout(shown: &Shown) -> v1::Rollout {
    let row = &shown.row;
    v1::Rollout {
        id: row.id.to_string(),
        kind: match row.state.kind {
            Kind::Deploy => "deploy".to_owned(),
            Kind::Return => "return".to_owned(),
        },
        app: row.app.to_string(),
        version: row.version.to_string(),
        environment: row.environment.to_string(),
        digest: row.digest.to_string(),
        state: shown.state().to_owned(),
        because: shown.because(),
        exit_code: shown.exit_code().into(),
        started_ms: row.started.0,
        ended_ms: row.ended.0,
        started_by: row.started_by.clone(),
        waves: row.waves.clone(),
        deployments: row.state.members.iter().map(|member| deployment(shown, member)).collect(),
        term: row.term,
    }
}

fn deployment(shown: &Shown, member: &Member) -> v1::Deployment {
    let state = member.state.as_str().to_owned();
    let row = shown.deployment(member);
    let progress = row.map(|row| row.view.progress.clone()).filter(|_| member.state.end().is_none());
    let because = match member.state.because() {
        because if because.is_empty() => progress.unwrap_or_default(),
        because => because,
    };
    let view = row.map(|row| &row.view);
    v1::Deployment {
        id: row.filter(|_| state != "pending").map(|row| row.id.to_string()).unwrap_or_default(),
        server: member.server.to_string(),
        wave: member.wave,
        state,
        because,
        steps: view.map(|view| view.steps.iter().map(step).collect()).unwrap_or_default(),
        release_before: view
            .and_then(|view| view.previous.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

fn step(step: &StepView) -> v1::StepView {
    let UnixMs(started_ms) = step.started;
    let UnixMs(ended_ms) = step.ended;
    v1::StepView {
        phase: step.phase.as_str().to_owned(),
        index: step.index,
        name: step.name.to_string(),
        kind: step.kind.clone(),
        state: step.state.as_str().to_owned(),
        because: step.because.clone(),
        attempts: u32::try_from(step.attempts.len()).unwrap_or(u32::MAX),
        started_ms,
        ended_ms,
        log_bytes: step.attempts.values().flatten().sum(),
    }
}

fn followed(item: Followed) -> v1::FollowEvent {
    use v1::follow_event::Kind;
    let kind = match item.update {
        Update::Rollout(shown) => Some(Kind::Rollout(rollout(&shown))),
        Update::Deployment(shown, id) => {
            let row = shown.deployments.iter().find(|row| row.id == id);
            let member = row.and_then(|row| shown.row.state.member(&row.server));
            member.map(|member| Kind::Deployment(deployment(&shown, member)))
        }
        Update::Log(part) => Some(Kind::Log(log_part(part))),
    };
    v1::FollowEvent { cursor: item.cursor, at_ms: item.at.0, kind }
}

fn log_part(part: LogPart) -> v1::LogPart {
    v1::LogPart {
        server: part.server.to_string(),
        deployment: part.deployment.to_string(),
        attempt: part.attempt.to_string(),
        step: part.step,
        offset: part.offset,
        records: part.records.into(),
    }
}

impl From<NotStarted> for Status {
    fn from(error: NotStarted) -> Self {
        let message = format!("{}: {error}", error.code());
        match &error {
            NotStarted::Waves(_)
            | NotStarted::Selector(_)
            | NotStarted::Strategy(_)
            | NotStarted::StepUnknown { .. }
            | NotStarted::ConfirmLonger { .. }
            | NotStarted::RolloutAmbiguous { .. } => Self::invalid_argument(message),
            NotStarted::ArtifactUnknown { .. }
            | NotStarted::ServerUnknown { .. }
            | NotStarted::NoServer { .. }
            | NotStarted::NoRollout { .. }
            | NotStarted::RolloutUnknown { .. } => Self::not_found(message),
            NotStarted::Busy { .. }
            | NotStarted::PlatformsMixed { .. }
            | NotStarted::PlatformMissing { .. }
            | NotStarted::NothingToReturn { .. }
            | NotStarted::AbortedUnchanged { .. }
            | NotStarted::Superseded { .. }
            | NotStarted::NoHold { .. }
            | NotStarted::NoConfirm
            | NotStarted::Behind(_)
            | NotStarted::NotBehind { .. }
            | NotStarted::Illegal(_) => Self::failed_precondition(message),
            NotStarted::Refused(refusal) => refused(refusal),
            NotStarted::Failed(error) => {
                tracing::error!(%error, "request failed");
                Self::internal("the coordinator could not do it; its log says why")
            }
        }
    }
}

impl From<FollowError> for Status {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::NotStarted(error) => error.into(),
            FollowError::SinceAmbiguous { .. } | FollowError::SinceInside { .. } => invalid(error),
            FollowError::Stopping => Self::unavailable(error.to_string()),
            FollowError::Store(_) | FollowError::File(_) => {
                tracing::error!(%error, "following failed");
                Self::internal("the coordinator could not read it; its log says why")
            }
        }
    }
}
