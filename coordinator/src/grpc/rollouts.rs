//! What operators ask of rollouts: wire to domain and back.

use std::sync::Arc;

use consign_common::{
    limits::STEPS,
    name::{ServerName, StepName},
    time::UnixMs,
    trust::DecisionAction,
};
use consign_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Status;

use super::{
    Answers, Caller, Role, Rollouts,
    answer::{invalid, reason, refused},
    rollout_view::{self, deployment, rollout},
    settings, view,
};
use crate::{
    environments,
    fleet::Sessions,
    rollout::Verb,
    rollouts::{
        Again, Controller, FollowError, Followed, LogPart, LogQuery, NotStarted, Output, PreviewRequest,
        RollbackOf, RollbackRequest, StartRequest, Until, Update,
    },
    store::Store,
};

#[derive(Clone, Debug)]
pub struct RolloutService {
    pub controller: Arc<Controller>,
    pub store: Arc<Store>,
    pub sessions: Arc<Sessions>,
}

#[tonic::async_trait]
impl Rollouts for RolloutService {
    async fn start(&self, caller: &Caller, request: v1::StartRolloutRequest) -> Result<v1::Rollout, Status> {
        let asked = settings::from_wire(request.settings.unwrap_or_default())?;
        let environment = request.environment.parse().map_err(invalid)?;
        let own = environments::store::find(self.store.read(), &environment).await?.settings;
        let app = request.app.parse().map_err(invalid)?;
        let version = request.version.parse().map_err(invalid)?;
        let request = StartRequest {
            id: optional(&request.id)?,
            selector: request.selector.parse().map_err(invalid)?,
            selector_text: request.selector,
            not_before: UnixMs(request.not_before_ms),
            skip: steps(&request.skip_steps)?,
            pinned: optional(&request.plan)?,
            reason: reason(&request.reason)?,
            again: again(request.force),
            by: caller.identity.to_string(),
            ..StartRequest::by_settings((app, version, environment), asked, own)?
        };
        Ok(rollout(&self.controller.start(request).await?))
    }

    async fn plan(&self, request: v1::PlanRolloutRequest) -> Result<v1::Plan, Status> {
        Ok(rollout_view::plan(&self.controller.preview(asked(request)?).await?))
    }

    async fn check(&self, request: v1::PlanRolloutRequest) -> Result<v1::Plan, Status> {
        Ok(rollout_view::checked(&self.controller.check(asked(request)?).await?))
    }

    async fn rollback(&self, caller: &Caller, request: v1::RollbackRequest) -> Result<v1::Rollout, Status> {
        if request.waves.len() > environments::WAVES {
            return Err(invalid(format!("more than {} waves", environments::WAVES)));
        }
        let of = if request.rollout.is_empty() {
            let app = request.app.parse().map_err(invalid)?;
            let environment = request.environment.parse().map_err(invalid)?;
            match optional(&request.version)? {
                Some(version) => RollbackOf::Version { app, environment, version },
                None => RollbackOf::Newest { app, environment },
            }
        } else {
            RollbackOf::Rollout(request.rollout)
        };
        let request = RollbackRequest {
            of,
            selector: request.selector.parse().map_err(invalid)?,
            waves: request.waves,
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
        self.press(caller, &request.rollout, &request.reason, Verb::Abort).await
    }

    async fn pause(&self, caller: &Caller, request: v1::PauseRolloutRequest) -> Result<v1::Rollout, Status> {
        self.press(caller, &request.rollout, &request.reason, Verb::Pause).await
    }

    async fn resume(
        &self,
        caller: &Caller,
        request: v1::ResumeRolloutRequest,
    ) -> Result<v1::Rollout, Status> {
        self.press(caller, &request.rollout, &request.reason, Verb::Resume).await
    }

    async fn retry(&self, caller: &Caller, request: v1::RetryRolloutRequest) -> Result<v1::Rollout, Status> {
        self.press(caller, &request.rollout, &request.reason, Verb::Retry).await
    }

    async fn skip(&self, caller: &Caller, request: v1::SkipInRolloutRequest) -> Result<v1::Rollout, Status> {
        let verb = match (optional(&request.server)?, optional(&request.step)?) {
            (server, Some(step)) => Verb::SkipStep { step, server },
            (Some(server), None) => Verb::SkipServer { server },
            (None, None) => return Err(invalid("what is left out is a server, a step, or both")),
        };
        self.press(caller, &request.rollout, &request.reason, verb).await
    }

    async fn decide(&self, caller: &Caller, request: v1::DecideStepRequest) -> Result<v1::Rollout, Status> {
        let action = match request.action.as_str() {
            "done" => DecisionAction::Done,
            "failed" => DecisionAction::Failed,
            "again" => DecisionAction::Again,
            "skip" => DecisionAction::Skip,
            _ => return Err(invalid("a step is decided to be done, failed, again or skip")),
        };
        let verb = Verb::Decide {
            server: request.server.parse().map_err(invalid)?,
            step: request.step.parse().map_err(invalid)?,
            action,
        };
        self.press(caller, &request.rollout, &request.reason, verb).await
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

    async fn history(&self, request: v1::ShowHistoryRequest) -> Result<v1::History, Status> {
        let (id, history) = self.controller.history(&request.rollout).await?;
        let happenings = history.into_iter().map(rollout_view::happening).collect();
        Ok(v1::History { rollout: id.to_string(), happenings })
    }

    async fn timeline(&self, request: v1::ShowTimelineRequest) -> Result<v1::Timeline, Status> {
        Ok(rollout_view::timeline(&self.controller.timeline(&request.rollout).await?))
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

    async fn converge(&self, server: &ServerName) -> Result<(), Status> {
        Ok(self.controller.converge(server).await.map_err(NotStarted::from)?)
    }

    fn is_online(&self, server: &ServerName) -> bool {
        self.sessions.is_online(server)
    }
}

impl RolloutService {
    async fn press(
        &self,
        caller: &Caller,
        given: &str,
        why: &str,
        verb: Verb,
    ) -> Result<v1::Rollout, Status> {
        let by = caller.identity.to_string();
        Ok(rollout(&self.controller.press(given, verb, &reason(why)?, &by).await?))
    }
}

fn asked(request: v1::PlanRolloutRequest) -> Result<PreviewRequest, Status> {
    Ok(PreviewRequest {
        app: request.app.parse().map_err(invalid)?,
        version: request.version.parse().map_err(invalid)?,
        environment: request.environment.parse().map_err(invalid)?,
        selector: request.selector.parse().map_err(invalid)?,
        again: again(request.force),
        skip: steps(&request.skip_steps)?,
    })
}

fn again(force: bool) -> Again {
    if force { Again::Force } else { Again::LeaveAlone }
}

fn steps(names: &[String]) -> Result<Vec<StepName>, Status> {
    if names.len() > STEPS {
        return Err(invalid(format!("more than {STEPS} steps")));
    }
    names.iter().map(|name| name.parse().map_err(invalid)).collect()
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
            | NotStarted::NotSkippable { .. }
            | NotStarted::ConfirmLonger { .. }
            | NotStarted::TimePast { .. }
            | NotStarted::RolloutAmbiguous { .. } => Self::invalid_argument(message),
            NotStarted::ArtifactUnknown { .. }
            | NotStarted::ServerUnknown { .. }
            | NotStarted::NoServer { .. }
            | NotStarted::NoRollout { .. }
            | NotStarted::PlanUnknown { .. }
            | NotStarted::RolloutUnknown { .. } => Self::not_found(message),
            NotStarted::Busy { .. }
            | NotStarted::SecretMissing { .. }
            | NotStarted::PlatformsMixed { .. }
            | NotStarted::PlatformMissing { .. }
            | NotStarted::NothingToReturn { .. }
            | NotStarted::NothingOfTheNewest { .. }
            | NotStarted::Superseded { .. }
            | NotStarted::NoHold { .. }
            | NotStarted::OnHold { .. }
            | NotStarted::NotWaiting { .. }
            | NotStarted::OtherPlatform { .. }
            | NotStarted::NoConfirm
            | NotStarted::Behind(_)
            | NotStarted::NotBehind { .. }
            | NotStarted::PlanOfOther { .. }
            | NotStarted::IdTaken { .. }
            | NotStarted::PlanWithout { .. }
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
