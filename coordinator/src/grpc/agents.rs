//! What agents ask: sessions, logs, files, and a new certificate.

use std::{net::SocketAddr, sync::Arc};

use consign_common::{
    digest::Sha256,
    name::{Environment, ServerName},
    time::Clock,
};
use consign_proto::v1::{self, agents_server::Agents, fetch_request::What};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Answers, Caller, Identity, Peer, agent_logs, agent_place, agent_session, answer::invalid, transfer,
};
use crate::{
    enrolment::Enroller,
    fleet::{Registry, Sessions},
    logs::LogWriter,
    repository::Repository,
    rollouts::{Controller, store},
    store::Store,
    trust_roots::TrustRoots,
};

/// Transfers to agents at once: enough to fill a line, few enough that each gets on.
const TRANSFERS: usize = 32;
/// Messages to one agent between us and HTTP/2.
pub(super) const AHEAD: usize = 16;

#[derive(Clone, Debug)]
pub struct AgentService {
    pub(super) parts: AgentParts,
    transfers: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
pub struct AgentParts {
    pub coordinator: String,
    pub enroller: Enroller,
    pub repository: Arc<Repository>,
    pub store: Arc<Store>,
    pub registry: Registry,
    pub trust_roots: Arc<TrustRoots>,
    pub controller: Arc<Controller>,
    pub sessions: Arc<Sessions>,
    pub logs: LogWriter,
    pub clock: Arc<dyn Clock>,
}

impl AgentService {
    pub fn new(parts: AgentParts) -> Self {
        Self { parts, transfers: Arc::new(Semaphore::new(TRANSFERS)) }
    }

    /// Nothing comes from or goes to a server in quarantine; its streams that were open then have been ended.
    async fn check_trusted(&self, server: &ServerName) -> Result<(), Status> {
        match self.parts.registry.quarantine_of(server).await? {
            Some(quarantine) => Err(agent_place::refused(&quarantine)),
            None => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Agents for AgentService {
    type SessionStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (server, environment) = agent(&request)?;
        let shown = shown(&request)?;
        let (to_agent, messages) = mpsc::channel(AHEAD);
        tokio::spawn(agent_session::run(
            self.parts.clone(),
            server,
            environment,
            shown,
            request.into_inner(),
            to_agent,
        ));
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    type LogsStream = ReceiverStream<Result<v1::LogAck, Status>>;

    async fn logs(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let (server, _) = agent(&request)?;
        self.check_trusted(&server).await?;
        Ok(Response::new(agent_logs::take(
            self.parts.logs.clone(),
            Arc::clone(&self.parts.sessions),
            server,
            request.into_inner(),
        )))
    }

    type FetchStream = Answers<v1::Chunk>;

    /// Only what an open order names to this server, what the server has had itself, and the manifest that it is asked about.
    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let (server, _) = agent(&request)?;
        self.check_trusted(&server).await?;
        let request = request.into_inner();
        let wanted: Sha256 =
            match request.what.as_ref().ok_or_else(|| invalid("what to fetch is not said"))? {
                What::Manifest(digest) => digest.parse().map_err(invalid)?,
                What::Pack(pair) => pair.to.parse().map_err(invalid)?,
            };
        let is_manifest = matches!(request.what, Some(What::Manifest(_)));
        let asked = is_manifest && self.parts.sessions.is_asked_about(&server, wanted);
        if !asked && !store::may_fetch(self.parts.store.read(), &server, &wanted).await? {
            tracing::warn!(%server, artifact = %wanted, "a file was asked for that no order names");
            return Err(Status::not_found("no order for this server names it"));
        }
        let transfers = Arc::clone(&self.transfers);
        let permit = transfers.acquire_owned().await.map_err(|_| Status::unavailable("stopping"))?;
        let chunks = transfer::fetch(&self.parts.repository, request).await?;
        // The place is given back when the stream is dropped.
        let chunks = chunks.map(move |chunk| {
            let _place = &permit;
            chunk
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller: Option<Caller> = request.extensions().get().cloned();
        let caller = caller.ok_or_else(|| Status::internal("the caller is not known"))?;
        Ok(Response::new(self.parts.enroller.renew(&caller, request.get_ref()).await?))
    }
}

/// The key that the agent has proved to have, and where it calls from.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) spki: Sha256,
    pub(super) address: SocketAddr,
}

fn shown<T>(request: &Request<T>) -> Result<Shown, Status> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Certified { spki, address, .. }) => Ok(Shown { spki: *spki, address: *address }),
        Some(Peer::Anonymous { .. } | Peer::Local { .. }) | None => {
            Err(Status::internal("the caller showed no certificate"))
        }
    }
}

/// Who calls. The access layer lets only agents through.
fn agent<T>(request: &Request<T>) -> Result<(ServerName, Environment), Status> {
    match request.extensions().get::<Caller>().map(|caller| &caller.identity) {
        Some(Identity::Agent { server, environment, .. }) => Ok((server.clone(), environment.clone())),
        Some(Identity::Anonymous | Identity::Operator { .. } | Identity::Local { .. }) | None => {
            Err(Status::internal("the caller is no agent"))
        }
    }
}
