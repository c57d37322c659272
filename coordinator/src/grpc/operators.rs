//! What operators, CI and the local command line ask. Whether they may was decided before, by the table in `roles.rs`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use consign_common::{
    audit::About,
    digest::Sha256,
    limits::STATEMENTS,
    name::{App, Id, ServerName},
    time::Clock,
};
use consign_proto::v1::{self, operators_server::Operators};
use tonic::{Request, Response, Status, Streaming};

use super::{
    AllowList, Answers, Apps, Caller, ConfigService, EnvironmentService, Role, Rollouts, WebhookService,
    answer::invalid,
    audit, own_apps, statements,
    transfer::{self, Chunks},
    view::{self, Presence},
};
use crate::{
    audit as log,
    enrolment::{self, Grant, NewToken, Tokens},
    fleet::{Enablement, Lifted, Registry, Selector, Server},
    repository::{Begun, Ended, Repository, Wanted},
    store::Store,
    trust_roots::{MESSAGE_BUDGET, TrustRoots},
};

/// A token's life if none is asked for, and at most.
const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);
const TOKEN_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const REASON_BYTES: usize = 1000;
/// Apps that one CI identity is for.
const APPS: usize = 100;

#[derive(Clone, Debug)]
pub struct OperatorService {
    /// The coordinator's id.
    pub coordinator: String,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<Store>,
    pub repository: Arc<Repository>,
    pub trust_roots: Arc<TrustRoots>,
    pub tokens: Tokens,
    pub registry: Registry,
    pub operators: crate::operators::Operators,
    pub allow_list: Arc<AllowList>,
    pub rollouts: Arc<dyn Rollouts>,
    pub environments: EnvironmentService,
    pub webhooks: WebhookService,
    pub config: ConfigService,
    /// `host:port`, as others reach us.
    pub address: String,
    pub enrolment_address: String,
}

#[tonic::async_trait]
impl Operators for OperatorService {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let caller = caller(&request)?;
        let root = self.trust_roots.newest();
        let servers = self.registry.list().await?;
        let quarantined = servers.iter().filter(|server| server.quarantine.is_some());
        let online = servers.iter().filter(|server| self.rollouts.is_online(&server.name)).count();
        Ok(Response::new(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            coordinator: self.coordinator.clone(),
            trust_root_version: root.version,
            trust_root_expires_ms: root.expires.0,
            servers: count(servers.len()),
            servers_online: count(online),
            artifacts: count(self.repository.list(None).await?.len()),
            rollouts_active: self.rollouts.active().await?,
            now_ms: self.clock.now().0,
            identity: caller.identity.to_string(),
            role: caller.role.as_str().into(),
            behind: self.rollouts.behind().await?,
            quarantined: quarantined.map(|server| server.name.to_string()).collect(),
            audit: Some(audit::head(log::head(self.store.read()).await?)),
            audit_disputes: audit::disputes(&self.store).await?,
            candidates_waiting: self.environments.candidates_waiting().await?,
            holds: self.environments.holds().await?,
        }))
    }

    async fn begin_publish(
        &self,
        request: Request<v1::BeginPublishRequest>,
    ) -> Answer<v1::BeginPublishResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let sha256 =
            <[u8; 32]>::try_from(&*request.pack_sha256).map_err(|_| invalid("pack_sha256 has 32 bytes"))?;
        let pack = (request.pack_length, Sha256::from_bytes(sha256));
        let begun = self
            .repository
            .begin(request.manifest.into(), request.statement.into(), pack, &caller.apps, self.clock.now())
            .await?;
        self.environments.controller.reconsider();
        Ok(Response::new(match begun {
            Begun::Complete => v1::BeginPublishResponse {
                upload: String::new(),
                offset: request.pack_length,
                complete: true,
            },
            Begun::Wanted { upload, offset } => {
                v1::BeginPublishResponse { upload: upload.into(), offset, complete: false }
            }
        }))
    }

    async fn upload_pack(&self, request: Request<Streaming<v1::UploadChunk>>) -> Answer<v1::UploadResponse> {
        let caller = caller(&request)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| invalid("the first chunk names the upload"))?;
        if let Apps::Only(_) = &caller.apps {
            caller.check_app(&self.repository.app_of_upload(&first.upload).await?)?;
        }
        let mut upload = self.repository.resume(&first.upload, first.offset).await?;
        upload.write(&first.data).await?;
        while let Some(chunk) = chunks.message().await? {
            if chunk.offset != upload.offset() {
                return Err(invalid(format!("byte {} does not follow {}", chunk.offset, upload.offset())));
            }
            upload.write(&chunk.data).await?;
        }
        Ok(Response::new(match upload.end().await? {
            Ended::Partial(offset) => v1::UploadResponse { complete: false, offset, artifact: None },
            Ended::Published(artifact) => {
                tracing::info!(app = %artifact.app, version = %artifact.version, digest = %artifact.digest, "published");
                self.environments.controller.reconsider();
                let offset = artifact.pack_bytes;
                let artifact = Some(view::artifact(*artifact, &[]));
                v1::UploadResponse { complete: true, offset, artifact }
            }
        }))
    }

    async fn list_artifacts(
        &self,
        request: Request<v1::ListArtifactsRequest>,
    ) -> Answer<v1::ListArtifactsResponse> {
        let app = optional(&request.get_ref().app)?;
        let servers = self.registry.list().await?;
        let mut artifacts = self.repository.list(app.as_ref()).await?;
        let caller = caller(&request)?;
        artifacts.retain(|artifact| caller.apps.has(&artifact.app));
        let artifacts = artifacts.into_iter().map(|artifact| view::artifact(artifact, &servers)).collect();
        Ok(Response::new(v1::ListArtifactsResponse { artifacts }))
    }

    async fn show_artifact(&self, request: Request<v1::ShowArtifactRequest>) -> Answer<v1::Artifact> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let wanted = match optional(&request.digest)? {
            Some(digest) => Wanted::Digest(digest),
            None => Wanted::Version {
                app: request.app.parse().map_err(invalid)?,
                version: request.version.parse().map_err(invalid)?,
                platform: optional(&request.platform)?,
            },
        };
        let artifact = self.repository.find(&wanted).await?;
        caller.check_app(&artifact.app)?;
        let digest = artifact.digest;
        let mut shown = view::artifact(artifact, &self.registry.list().await?);
        let statements = self.repository.statements(digest).await?;
        shown.statements = statements.into_iter().map(Into::into).collect();
        let manifest = self.repository.manifest(digest).await?;
        // Larger ones are fetched: FetchArtifact has no limit but the manifest's own.
        if manifest.len() <= MESSAGE_BUDGET / 2 {
            shown.manifest = manifest.into();
        }
        Ok(Response::new(shown))
    }

    type FetchArtifactStream = Chunks;

    async fn fetch_artifact(&self, request: Request<v1::FetchRequest>) -> Answer<Chunks> {
        own_apps::check_fetch(&caller(&request)?, &self.repository, request.get_ref()).await?;
        Ok(Response::new(transfer::fetch(&self.repository, request.into_inner()).await?))
    }

    async fn get_trust_roots(&self, request: Request<v1::GetTrustRootsRequest>) -> Answer<v1::TrustRoots> {
        let envelopes = self.trust_roots.after(request.get_ref().after_version, MESSAGE_BUDGET).await?;
        Ok(Response::new(v1::TrustRoots { envelopes: envelopes.into_iter().map(Into::into).collect() }))
    }

    async fn put_trust_root(
        &self,
        request: Request<v1::PutTrustRootRequest>,
    ) -> Answer<v1::PutTrustRootResponse> {
        let caller = caller(&request)?;
        log::note(|act| {
            act.by(Sha256::of(&request.get_ref().envelope));
        });
        let version = self.trust_roots.put(&request.get_ref().envelope).await?;
        tracing::info!(version, by = %caller.identity, "new trust root");
        Ok(Response::new(v1::PutTrustRootResponse { version }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let created = self.clock.now();
        let new = NewToken {
            grant: self.grant(&request)?,
            replaces: request.replace,
            created_by: caller.identity.to_string(),
            created,
            expires: created.plus(ttl(request.ttl_seconds)?),
        };
        note_grant(&new.grant);
        let token = self.tokens.create(&new).await.map_err(|refusal| enrolment::refused(&refusal))?;
        tracing::info!(token = %token.id, name = request.name, role = request.role, by = new.created_by, "token made");
        Ok(Response::new(v1::CreateTokenResponse {
            token_id: token.id.into(),
            token_secret: token.secret.to_vec().into(),
            expires_ms: new.expires.0,
            enrolment_address: self.enrolment_address.clone(),
            address: self.address.clone(),
        }))
    }

    async fn list_servers(
        &self,
        request: Request<v1::ListServersRequest>,
    ) -> Answer<v1::ListServersResponse> {
        let request = request.into_inner();
        let selector: Selector = request.selector.parse().map_err(invalid)?;
        let all = self.registry.list().await?;
        let known: BTreeSet<_> = all.iter().map(|server| &server.name).collect();
        if let Some(name) = selector.unknown(&known).first() {
            return Err(Status::not_found(format!("there is no server {name}")));
        }
        let wanted = |server: &Server| {
            selector.matches(&server.name, &server.report.labels)
                && (request.environment.is_empty() || server.environment.as_str() == request.environment)
                && (request.name.is_empty() || server.name.as_str() == request.name)
        };
        let behind = self.rollouts.behind().await?;
        let servers = all.into_iter().filter(wanted).map(|server| self.server(server, &behind));
        let mut servers = audit::of_servers(&self.store, servers.collect()).await?;
        let keys = self.config.keys(v1::ListSealingKeysRequest::default()).await?.servers;
        for server in &mut servers {
            server.keys = keys.iter().find(|keys| keys.server == server.name).cloned();
        }
        let trust_root_expires_ms = self.trust_roots.newest().expires.0;
        Ok(Response::new(v1::ListServersResponse { servers, trust_root_expires_ms }))
    }

    async fn set_server(&self, request: Request<v1::SetServerRequest>) -> Answer<v1::Server> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let name: ServerName = request.name.parse().map_err(invalid)?;
        if request.reason.len() > REASON_BYTES {
            return Err(invalid(format!("a reason has at most {REASON_BYTES} bytes")));
        }
        let reason = request.reason.trim();
        log::note(|act| {
            let what = if request.enabled { "server enable" } else { "server disable" };
            act.what = what.to_owned();
            act.about(About::Server, &name).because(reason);
        });
        let enablement = if request.enabled {
            self.lift_quarantine(&name, reason, &caller).await?;
            Enablement::Enabled
        } else if reason.is_empty() {
            return Err(invalid("a server is disabled for a reason"));
        } else {
            Enablement::Disabled { reason: request.reason, by: caller.identity.to_string() }
        };
        self.registry.set_enablement(&name, &enablement).await?;
        tracing::info!(server = %name, ?enablement, by = %caller.identity, "server set");
        if enablement == Enablement::Enabled && self.rollouts.is_online(&name) {
            self.rollouts.converge(&name).await?;
        }
        let behind = self.rollouts.behind().await?;
        Ok(Response::new(self.server(self.registry.get(&name).await?, &behind)))
    }

    async fn remove_server(
        &self,
        request: Request<v1::RemoveServerRequest>,
    ) -> Answer<v1::RemoveServerResponse> {
        let caller = caller(&request)?;
        let name: ServerName = request.get_ref().name.parse().map_err(invalid)?;
        note_about(About::Server, &name);
        let keys = self.registry.remove(&name).await?;
        self.allow_list.refresh(&keys).await?;
        tracing::info!(server = %name, by = %caller.identity, "server removed");
        Ok(Response::new(v1::RemoveServerResponse {}))
    }

    async fn list_operators(
        &self,
        _request: Request<v1::ListOperatorsRequest>,
    ) -> Answer<v1::ListOperatorsResponse> {
        let operators = self.operators.list().await?.into_iter().map(view::operator).collect();
        Ok(Response::new(v1::ListOperatorsResponse { operators }))
    }

    async fn remove_operator(
        &self,
        request: Request<v1::RemoveOperatorRequest>,
    ) -> Answer<v1::RemoveOperatorResponse> {
        let caller = caller(&request)?;
        let name = request.get_ref().name.parse().map_err(invalid)?;
        note_about(About::Operator, &name);
        let keys = self.operators.remove(&name).await?;
        self.allow_list.refresh(&keys).await?;
        tracing::info!(operator = %name, by = %caller.identity, "operator removed");
        Ok(Response::new(v1::RemoveOperatorResponse {}))
    }

    async fn start_rollout(&self, request: Request<v1::StartRolloutRequest>) -> Answer<v1::Rollout> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        log::note(|act| {
            act.about(About::App, &request.app).about(About::Version, &request.version);
            act.about(About::Environment, &request.environment).because(&request.reason);
        });
        self.take_decisions(&caller, &request.statements).await?;
        self.rollouts.start(&caller, request).await.map(Response::new)
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Answer<v1::Rollout> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        log::note(|act| {
            act.about(About::App, &request.app).about(About::Environment, &request.environment);
            act.because(&request.reason);
        });
        self.rollouts.rollback(&caller, request).await.map(Response::new)
    }

    async fn abort_rollout(&self, request: Request<v1::AbortRolloutRequest>) -> Answer<v1::Rollout> {
        let caller = caller(&request)?;
        note_word(&request.get_ref().rollout, &request.get_ref().reason);
        self.rollouts.abort(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn take_over(&self, request: Request<v1::TakeOverRequest>) -> Answer<v1::TakeOverResponse> {
        let caller = caller(&request)?;
        let asked = request.get_ref();
        log::note(|act| {
            act.about(About::App, &asked.app).about(About::Environment, &asked.environment);
            act.because(&asked.reason);
        });
        self.rollouts.take_over(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn plan_rollout(&self, request: Request<v1::PlanRolloutRequest>) -> Answer<v1::Plan> {
        own_apps::check_name(&caller(&request)?, &request.get_ref().app)?;
        self.rollouts.plan(request.into_inner()).await.map(Response::new)
    }

    async fn pause_rollout(&self, request: Request<v1::PauseRolloutRequest>) -> Answer<v1::Rollout> {
        let caller = caller(&request)?;
        note_word(&request.get_ref().rollout, &request.get_ref().reason);
        self.rollouts.pause(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn resume_rollout(&self, request: Request<v1::ResumeRolloutRequest>) -> Answer<v1::Rollout> {
        let caller = caller(&request)?;
        note_word(&request.get_ref().rollout, &request.get_ref().reason);
        self.rollouts.resume(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn retry_rollout(&self, request: Request<v1::RetryRolloutRequest>) -> Answer<v1::Rollout> {
        let caller = caller(&request)?;
        note_word(&request.get_ref().rollout, &request.get_ref().reason);
        self.rollouts.retry(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn skip_in_rollout(&self, request: Request<v1::SkipInRolloutRequest>) -> Answer<v1::Rollout> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        note_word(&request.rollout, &request.reason);
        log::note(|act| {
            act.about(About::Server, &request.server).about(About::Step, &request.step);
        });
        self.take_decisions(&caller, &request.statements).await?;
        self.rollouts.skip(&caller, request).await.map(Response::new)
    }

    async fn decide_step(&self, request: Request<v1::DecideStepRequest>) -> Answer<v1::Rollout> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        note_word(&request.rollout, &format!("{}: {}", request.action, request.reason));
        log::note(|act| {
            act.about(About::Server, &request.server).about(About::Step, &request.step);
        });
        self.take_decisions(&caller, &request.statements).await?;
        self.rollouts.decide(&caller, request).await.map(Response::new)
    }

    async fn show_history(&self, request: Request<v1::ShowHistoryRequest>) -> Answer<v1::History> {
        own_apps::check_rollout(&caller(&request)?, &*self.rollouts, &request.get_ref().rollout).await?;
        self.rollouts.history(request.into_inner()).await.map(Response::new)
    }

    async fn show_timeline(&self, request: Request<v1::ShowTimelineRequest>) -> Answer<v1::Timeline> {
        own_apps::check_rollout(&caller(&request)?, &*self.rollouts, &request.get_ref().rollout).await?;
        self.rollouts.timeline(request.into_inner()).await.map(Response::new)
    }

    async fn apply_environments(
        &self,
        request: Request<v1::ApplyEnvironmentsRequest>,
    ) -> Answer<v1::ApplyEnvironmentsResponse> {
        let caller = caller(&request)?;
        self.environments.apply(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn list_environments(
        &self,
        _request: Request<v1::ListEnvironmentsRequest>,
    ) -> Answer<v1::ListEnvironmentsResponse> {
        self.environments.list().await.map(Response::new)
    }

    async fn show_environment(
        &self,
        request: Request<v1::ShowEnvironmentRequest>,
    ) -> Answer<v1::Environment> {
        self.environments.show(request.into_inner()).await.map(Response::new)
    }

    async fn lift_hold(&self, request: Request<v1::LiftHoldRequest>) -> Answer<v1::Hold> {
        let caller = caller(&request)?;
        let asked = request.get_ref();
        log::note(|act| {
            act.about(About::App, &asked.app).about(About::Environment, &asked.environment);
            act.because(&asked.reason);
        });
        self.environments.lift_hold(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn put_statement(&self, request: Request<v1::PutStatementRequest>) -> Answer<v1::Statement> {
        let caller = caller(&request)?;
        let envelope = request.into_inner().envelope;
        let put = statements::put(&self.repository, &caller, envelope.into(), self.clock.now()).await?;
        self.environments.controller.reconsider();
        Ok(Response::new(put))
    }

    async fn list_statements(
        &self,
        request: Request<v1::ListStatementsRequest>,
    ) -> Answer<v1::ListStatementsResponse> {
        let digest = request.get_ref().digest.parse().map_err(invalid)?;
        own_apps::check_artifact(&caller(&request)?, &self.repository, digest).await?;
        statements::list(&self.repository, &self.trust_roots.newest(), digest).await.map(Response::new)
    }

    type ReadAuditStream = Answers<v1::AuditEntry>;

    async fn read_audit(&self, request: Request<v1::ReadAuditRequest>) -> Answer<Answers<v1::AuditEntry>> {
        own_apps::check_name(&caller(&request)?, &request.get_ref().app)?;
        audit::read(Arc::clone(&self.store), request.into_inner()).map(Response::new)
    }

    async fn audit_heads(&self, _request: Request<v1::AuditHeadsRequest>) -> Answer<v1::AuditHeadsResponse> {
        audit::heads(&self.store, &self.coordinator).await.map(Response::new)
    }

    async fn accept_audit(
        &self,
        request: Request<v1::AcceptAuditRequest>,
    ) -> Answer<v1::AcceptAuditResponse> {
        audit::accept(&self.store, request.into_inner()).await.map(Response::new)
    }

    async fn list_webhooks(
        &self,
        _request: Request<v1::ListWebhooksRequest>,
    ) -> Answer<v1::ListWebhooksResponse> {
        self.webhooks.list().await.map(Response::new)
    }

    async fn test_webhook(&self, request: Request<v1::WebhookRequest>) -> Answer<v1::Webhook> {
        self.webhooks.test(request.into_inner()).await.map(Response::new)
    }

    async fn retry_webhook(&self, request: Request<v1::WebhookRequest>) -> Answer<v1::Webhook> {
        self.webhooks.retry(request.into_inner()).await.map(Response::new)
    }

    type ListReceiptsStream = Answers<v1::StoredReceipt>;

    async fn list_receipts(
        &self,
        request: Request<v1::ListReceiptsRequest>,
    ) -> Answer<Answers<v1::StoredReceipt>> {
        own_apps::check_receipts(&caller(&request)?, &self.repository, &*self.rollouts, request.get_ref())
            .await?;
        audit::receipts(Arc::clone(&self.store), request.get_ref()).map(Response::new)
    }

    async fn check_rollout(&self, request: Request<v1::PlanRolloutRequest>) -> Answer<v1::Plan> {
        own_apps::check_name(&caller(&request)?, &request.get_ref().app)?;
        self.rollouts.check(request.into_inner()).await.map(Response::new)
    }

    async fn list_candidates(
        &self,
        request: Request<v1::ListCandidatesRequest>,
    ) -> Answer<v1::ListCandidatesResponse> {
        let caller = caller(&request)?;
        let mut listed = self.environments.list_candidates(request.into_inner()).await?;
        listed.candidates.retain(|candidate| own_apps::is_own(&caller, &candidate.app));
        Ok(Response::new(listed))
    }

    async fn veto_candidate(&self, request: Request<v1::VetoCandidateRequest>) -> Answer<v1::Candidate> {
        let caller = caller(&request)?;
        self.environments.veto(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn hold_environment(&self, request: Request<v1::HoldEnvironmentRequest>) -> Answer<v1::Hold> {
        let caller = caller(&request)?;
        self.environments.hold(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn list_rollouts(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Answer<v1::ListRolloutsResponse> {
        let caller = caller(&request)?;
        let mut listed = self.rollouts.list(request.into_inner()).await?;
        listed.rollouts.retain(|rollout| own_apps::is_own(&caller, &rollout.app));
        Ok(Response::new(listed))
    }

    async fn show_rollout(&self, request: Request<v1::ShowRolloutRequest>) -> Answer<v1::Rollout> {
        own_apps::check_rollout(&caller(&request)?, &*self.rollouts, &request.get_ref().rollout).await?;
        self.rollouts.show(request.into_inner()).await.map(Response::new)
    }

    type FollowRolloutStream = Answers<v1::FollowEvent>;

    async fn follow_rollout(
        &self,
        request: Request<v1::FollowRolloutRequest>,
    ) -> Answer<Answers<v1::FollowEvent>> {
        own_apps::check_rollout(&caller(&request)?, &*self.rollouts, &request.get_ref().rollout).await?;
        self.rollouts.follow(request.into_inner()).await.map(Response::new)
    }

    type ReadLogsStream = Answers<v1::LogPart>;

    async fn read_logs(&self, request: Request<v1::ReadLogsRequest>) -> Answer<Answers<v1::LogPart>> {
        own_apps::check_rollout(&caller(&request)?, &*self.rollouts, &request.get_ref().rollout).await?;
        self.rollouts.read_logs(request.into_inner()).await.map(Response::new)
    }

    async fn put_config(&self, request: Request<v1::PutConfigRequest>) -> Answer<v1::PutConfigResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let servers: BTreeSet<String> = request.sealed.iter().map(|sealed| sealed.server.clone()).collect();
        let put = self.config.put(&caller, request).await?;
        self.environments.controller.reconsider();
        // One that came later and lacked them can have what its environment runs now.
        for server in servers {
            let server: ServerName = server.parse().map_err(invalid)?;
            if self.rollouts.is_online(&server) {
                self.rollouts.converge(&server).await?;
            }
        }
        Ok(Response::new(put))
    }

    async fn show_config(&self, request: Request<v1::ShowConfigRequest>) -> Answer<v1::ShowConfigResponse> {
        own_apps::check_name(&caller(&request)?, &request.get_ref().app)?;
        self.config.show(request.into_inner()).await.map(Response::new)
    }

    async fn list_sealing_keys(
        &self,
        request: Request<v1::ListSealingKeysRequest>,
    ) -> Answer<v1::ListSealingKeysResponse> {
        self.config.keys(request.into_inner()).await.map(Response::new)
    }

    async fn accept_server(
        &self,
        request: Request<v1::AcceptServerRequest>,
    ) -> Answer<v1::AcceptServerResponse> {
        let caller = caller(&request)?;
        self.config.accept(&caller, request.into_inner()).await.map(Response::new)
    }
}

type Answer<T> = Result<Response<T>, Status>;

impl OperatorService {
    fn server(&self, server: Server, behind: &[v1::Behind]) -> v1::Server {
        let online = self.rollouts.is_online(&server.name);
        view::server(server, if online { Presence::Online } else { Presence::Offline }, behind)
    }

    /// What was signed about a rollout's steps, if anything was: it goes with the orders that it is for.
    async fn take_decisions(
        &self,
        caller: &Caller,
        envelopes: &[impl AsRef<[u8]> + Sync],
    ) -> Result<(), Status> {
        if envelopes.len() > STATEMENTS {
            return Err(invalid(format!("more than {STATEMENTS} statements")));
        }
        for envelope in envelopes {
            let now = self.clock.now();
            log::note(|act| {
                act.by(Sha256::of(envelope.as_ref()));
            });
            let put = statements::put(&self.repository, caller, envelope.as_ref().to_vec(), now);
            log::aside(log::verbs::STATEMENT, put).await?;
        }
        Ok(())
    }

    /// Which agent is the server, a person says: by enrolling one of them anew, or by a reason.
    async fn lift_quarantine(&self, name: &ServerName, reason: &str, caller: &Caller) -> Result<(), Status> {
        match self.registry.lift_quarantine(name, reason).await? {
            Lifted::WasNone => {}
            Lifted::NeedsReason(quarantine) => {
                return Err(Status::failed_precondition(format!(
                    "quarantined: {}; enrol the one that is {name} anew first (`consign server token --name {name} --replace`, \
                     then `consign-agent enroll --replace`), which shuts the other one out; or say with --reason why there is \
                     only one",
                    quarantine.because
                )));
            }
            Lifted::EnrolledAnew(quarantine) => {
                tracing::info!(server = %name, because = quarantine.because, by = %caller.identity,
                    "quarantine lifted: it was enrolled anew");
            }
            Lifted::ByReason(quarantine) => {
                tracing::info!(server = %name, because = quarantine.because, by = %caller.identity, reason,
                    "quarantine lifted");
            }
        }
        Ok(())
    }

    /// Whom a token would make; an environment must be one that the trust root names.
    fn grant(&self, request: &v1::CreateTokenRequest) -> Result<Grant, Status> {
        let role: Role = request.role.parse().map_err(invalid)?;
        if role != Role::Agent {
            if !request.environment.is_empty() {
                return Err(invalid("an operator belongs to no environment"));
            }
            if role != Role::Ci && !request.apps.is_empty() {
                return Err(invalid("only an identity of role ci is for some apps"));
            }
            if request.apps.len() > APPS {
                return Err(invalid(format!("more than {APPS} apps")));
            }
            let apps = request.apps.iter().map(|app| app.parse().map_err(invalid));
            let apps = apps.collect::<Result<_, _>>()?;
            return Ok(Grant::Operator { name: request.name.parse().map_err(invalid)?, role, apps });
        }
        let environment = request.environment.parse().map_err(invalid)?;
        if !self.trust_roots.newest().environments.contains_key(&environment) {
            return Err(Status::failed_precondition(format!(
                "environment-unknown: the trust root does not name {environment}; add it with `consign trust update`"
            )));
        }
        Ok(Grant::Agent { server: request.name.parse().map_err(invalid)?, environment })
    }
}

fn note_about(about: About, name: &impl ToString) {
    log::note(|act| {
        act.about(about, name.to_string());
    });
}

/// An operator's word about a rollout, which may be named by the beginning of its id.
fn note_word(rollout: &str, reason: &str) {
    log::note(|act| {
        act.because(reason);
        if rollout.parse::<Id>().is_ok() {
            act.about(About::Rollout, rollout);
        }
    });
}

/// Whom the token is to make.
fn note_grant(grant: &Grant) {
    log::note(|act| match grant {
        Grant::Agent { server, environment } => {
            act.about(About::Server, server)
                .about(About::Environment, environment)
                .about(About::Role, "agent");
        }
        Grant::Operator { name, role, apps } => {
            let apps: Vec<&str> = apps.iter().map(App::as_str).collect();
            act.about(About::Operator, name)
                .about(About::Role, role.as_str())
                .about(About::App, apps.join(" "));
        }
    });
}

/// Who calls: put there by the access layer, without which no request comes here.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::internal("the caller is not known"))
}

fn ttl(seconds: u32) -> Result<Duration, Status> {
    let ttl = Duration::from_secs(seconds.into());
    if ttl > TOKEN_TTL_MAX {
        return Err(invalid(format!("a token lives {TOKEN_TTL_MAX:?} at most")));
    }
    Ok(if ttl.is_zero() { TOKEN_TTL } else { ttl })
}

/// An empty field is one that was not given.
fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Option<T>, Status> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(invalid) }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
