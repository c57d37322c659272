//! What the rollout controller answers for the services here. A trait, so that the services' tests need no fleet.

use std::{fmt, pin::Pin};

use consign_common::name::ServerName;
use consign_proto::v1;
use tokio_stream::Stream;
use tonic::Status;

use super::Caller;

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
pub trait Rollouts: fmt::Debug + Send + Sync + 'static {
    async fn start(&self, caller: &Caller, request: v1::StartRolloutRequest) -> Result<v1::Rollout, Status>;
    async fn rollback(&self, caller: &Caller, request: v1::RollbackRequest) -> Result<v1::Rollout, Status>;
    async fn abort(&self, caller: &Caller, request: v1::AbortRolloutRequest) -> Result<v1::Rollout, Status>;
    async fn plan(&self, request: v1::PlanRolloutRequest) -> Result<v1::Plan, Status>;
    /// As `plan`; for servers that cannot be asked, the coordinator's own word.
    async fn check(&self, request: v1::PlanRolloutRequest) -> Result<v1::Plan, Status>;
    async fn pause(&self, caller: &Caller, request: v1::PauseRolloutRequest) -> Result<v1::Rollout, Status>;
    async fn resume(&self, caller: &Caller, request: v1::ResumeRolloutRequest)
    -> Result<v1::Rollout, Status>;
    async fn retry(&self, caller: &Caller, request: v1::RetryRolloutRequest) -> Result<v1::Rollout, Status>;
    async fn skip(&self, caller: &Caller, request: v1::SkipInRolloutRequest) -> Result<v1::Rollout, Status>;
    async fn decide(&self, caller: &Caller, request: v1::DecideStepRequest) -> Result<v1::Rollout, Status>;
    async fn history(&self, request: v1::ShowHistoryRequest) -> Result<v1::History, Status>;
    async fn timeline(&self, request: v1::ShowTimelineRequest) -> Result<v1::Timeline, Status>;
    async fn list(&self, request: v1::ListRolloutsRequest) -> Result<v1::ListRolloutsResponse, Status>;
    async fn show(&self, request: v1::ShowRolloutRequest) -> Result<v1::Rollout, Status>;
    async fn follow(&self, request: v1::FollowRolloutRequest) -> Result<Answers<v1::FollowEvent>, Status>;
    async fn read_logs(&self, request: v1::ReadLogsRequest) -> Result<Answers<v1::LogPart>, Status>;
    /// Rollouts that have not ended.
    async fn active(&self) -> Result<u32, Status>;
    /// Where agents are ahead of this coordinator.
    async fn behind(&self) -> Result<Vec<v1::Behind>, Status>;
    async fn take_over(
        &self,
        caller: &Caller,
        request: v1::TakeOverRequest,
    ) -> Result<v1::TakeOverResponse, Status>;
    /// A server was let in again: it gets what its environment runs, if it owes that.
    async fn converge(&self, server: &ServerName) -> Result<(), Status>;
    /// Whether the server's agent has a session now.
    fn is_online(&self, server: &ServerName) -> bool;
}
