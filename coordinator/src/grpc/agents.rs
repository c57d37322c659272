//! What agents ask: until their sessions are here, a new certificate.

use std::sync::Arc;

use consign_proto::v1::{self, agents_server::Agents};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Answers, Caller,
    transfer::{self, Chunks},
};
use crate::{enrolment::Enroller, repository::Repository};

#[derive(Clone, Debug)]
pub struct AgentService {
    pub enroller: Enroller,
    pub repository: Arc<Repository>,
}

#[tonic::async_trait]
impl Agents for AgentService {
    type SessionStream = Answers<v1::CoordinatorMessage>;

    async fn session(
        &self,
        _request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(unbuilt())
    }

    type LogsStream = Answers<v1::LogAck>;

    async fn logs(
        &self,
        _request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        Err(unbuilt())
    }

    type FetchStream = Chunks;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Chunks>, Status> {
        Ok(Response::new(transfer::fetch(&self.repository, request.into_inner()).await?))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller: Option<Caller> = request.extensions().get().cloned();
        let caller = caller.ok_or_else(|| Status::internal("the caller is not known"))?;
        Ok(Response::new(self.enroller.renew(&caller, request.get_ref()).await?))
    }
}

fn unbuilt() -> Status {
    Status::unimplemented("this coordinator has no rollouts yet")
}

/// Stands where the rollout controller will.
#[derive(Clone, Copy, Debug)]
pub struct Unbuilt;

#[tonic::async_trait]
impl super::Rollouts for Unbuilt {
    async fn start(&self, _: &Caller, _: v1::StartRolloutRequest) -> Result<v1::Rollout, Status> {
        Err(unbuilt())
    }
    async fn rollback(&self, _: &Caller, _: v1::RollbackRequest) -> Result<v1::Rollout, Status> {
        Err(unbuilt())
    }
    async fn abort(&self, _: &Caller, _: v1::AbortRolloutRequest) -> Result<v1::Rollout, Status> {
        Err(unbuilt())
    }
    async fn list(&self, _: v1::ListRolloutsRequest) -> Result<v1::ListRolloutsResponse, Status> {
        Err(unbuilt())
    }
    async fn show(&self, _: v1::ShowRolloutRequest) -> Result<v1::Rollout, Status> {
        Err(unbuilt())
    }
    async fn follow(&self, _: v1::FollowRolloutRequest) -> Result<Answers<v1::FollowEvent>, Status> {
        Err(unbuilt())
    }
    async fn read_logs(&self, _: v1::ReadLogsRequest) -> Result<Answers<v1::LogPart>, Status> {
        Err(unbuilt())
    }
    async fn active(&self) -> Result<u32, Status> {
        Ok(0)
    }
    fn is_online(&self, _: &consign_common::name::ServerName) -> bool {
        false
    }
}
