//! Enrolment and renewal.

use std::{net::SocketAddr, sync::Arc};

use consign_common::{
    name::Id,
    sealing::Recipient,
    time::{Clock, UnixMs},
    tls::Subject,
    wire,
};
use consign_proto::v1::{
    EnrollRequest, EnrollResponse, RenewRequest, RenewResponse, enrolment_server::Enrolment,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tonic::{Request, Response, Status};

use super::{Authority, Grant, TokenRefusal, Tokens, authority::Issued, tokens::Token};
use crate::{
    config,
    fleet::{NewServer, Registry, RegistryError},
    grpc::{AllowList, Caller, Identity, Peer, Role},
    operators::Operators,
    store::{Store, StoreError},
    trust_roots::{MESSAGE_BUDGET, TrustRoots},
};

/// Makes identities.
#[derive(Clone, Debug)]
pub struct Enroller {
    pub store: Arc<Store>,
    pub tokens: Tokens,
    pub authority: Arc<Authority>,
    pub allow_list: Arc<AllowList>,
    pub trust_roots: Arc<TrustRoots>,
    pub clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl Enrolment for Enroller {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let from = match request.extensions().get::<Peer>() {
            Some(Peer::Anonymous { address } | Peer::Certified { address, .. }) => *address,
            Some(Peer::Local { .. }) | None => return Err(Status::internal("the peer has no address")),
        };
        let request = request.into_inner();
        wire::labels(request.labels.clone()).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !request.sealing_key.is_empty() {
            let checked: Result<Recipient, _> = request.sealing_key.parse();
            checked.map_err(|error| Status::invalid_argument(format!("sealing key: {error}")))?;
        }
        let now = self.clock.now();
        let token = self
            .tokens
            .check(&request.token_id, &request.token_secret, &request.name, &request.environment, from, now)
            .await
            .map_err(|refusal| refused(&refusal))?;
        let (identity, subject) = identity(&token.grant)?;
        let issued = self
            .authority
            .issue(&request.csr, &subject, now)
            .map_err(|error| Status::invalid_argument(format!("certificate request: {error}")))?;
        self.admit(&token, &identity, &request, &issued, from, now)
            .await
            .map_err(|refusal| refused(&refusal))?;
        tracing::info!(%identity, %from, token = %token.id, "enrolled");
        let trust_roots = self.trust_roots.after(0, MESSAGE_BUDGET).await;
        Ok(Response::new(EnrollResponse {
            certificate: issued.certificate.to_vec().into(),
            ca_certificate: self.authority.ca_certificate().to_vec().into(),
            identity: subject.uri(),
            trust_roots: trust_roots
                .map_err(|error| Status::internal(error.to_string()))?
                .into_iter()
                .map(Into::into)
                .collect(),
        }))
    }
}

impl Enroller {
    /// Token spent, identity made, key allowed: all in one transaction, or nothing.
    async fn admit(
        &self,
        token: &Token,
        identity: &Identity,
        request: &EnrollRequest,
        issued: &Issued,
        from: SocketAddr,
        now: UnixMs,
    ) -> Result<(), TokenRefusal> {
        let mut write = self.store.write().await?;
        Tokens::spend(&mut write, token, from, now).await?;
        let mut changed = AllowList::keys_of(&mut write, identity).await?;
        match identity {
            Identity::Agent { server, uid, environment } => {
                let new = NewServer {
                    name: server.clone(),
                    uid: uid.clone(),
                    environment: environment.clone(),
                    labels: request.labels.clone().into_iter().collect(),
                    agent_version: request.agent_version.chars().take(64).collect(),
                };
                Registry::enrol(&mut write, &new, now).await.map_err(|error| match error {
                    RegistryError::Store(error) => error,
                    RegistryError::Unknown { name } => StoreError::corrupt(name),
                })?;
                if !request.sealing_key.is_empty() {
                    config::note_sealing_key(&mut write, server, &request.sealing_key, now).await?;
                }
            }
            Identity::Operator { name } => {
                let role = match &token.grant {
                    Grant::Operator { role, .. } => *role,
                    Grant::Agent { .. } => Role::Agent,
                };
                Operators::enrol(&mut write, name, role, &token.created_by, now).await?;
            }
            Identity::Anonymous | Identity::Local { .. } => {}
        }
        AllowList::add(&mut write, issued.spki, identity, issued.ends, now).await?;
        write.commit().await?;
        changed.push(issued.spki);
        self.allow_list.refresh(&changed).await?;
        Ok(())
    }

    /// A new key for the identity that holds the old one.
    pub async fn renew(&self, caller: &Caller, request: &RenewRequest) -> Result<RenewResponse, Status> {
        let subject = match &caller.identity {
            Identity::Agent { server, uid, .. } => {
                Subject::Agent { server: server.clone(), uid: uid.clone() }
            }
            Identity::Operator { name } => Subject::Operator { name: name.as_str().to_owned() },
            Identity::Anonymous | Identity::Local { .. } => {
                return Err(Status::failed_precondition("there is no certificate to renew"));
            }
        };
        let now = self.clock.now();
        let issued = self
            .authority
            .issue(&request.csr, &subject, now)
            .map_err(|error| Status::invalid_argument(format!("certificate request: {error}")))?;
        self.allow_list
            .renew(issued.spki, &caller.identity, issued.ends, now)
            .await
            .map_err(|error| refused(&TokenRefusal::Store(error)))?;
        tracing::info!(identity = %caller.identity, "certificate renewed");
        Ok(RenewResponse { certificate: issued.certificate.to_vec().into() })
    }
}

fn identity(grant: &Grant) -> Result<(Identity, Subject), Status> {
    match grant {
        Grant::Agent { server, environment } => {
            let mut bits = [0; 16];
            SystemRandom::new().fill(&mut bits).map_err(|_| Status::internal("no randomness"))?;
            let uid = Id::from_bytes(bits);
            let subject = Subject::Agent { server: server.clone(), uid: uid.clone() };
            let identity = Identity::Agent { server: server.clone(), uid, environment: environment.clone() };
            Ok((identity, subject))
        }
        Grant::Operator { name, .. } => {
            let subject = Subject::Operator { name: name.as_str().to_owned() };
            Ok((Identity::Operator { name: name.clone() }, subject))
        }
    }
}

/// What the caller is told. A database's own words stay here; "denied" is what the access layer says and nobody else.
pub fn refused(refusal: &TokenRefusal) -> Status {
    match refusal {
        TokenRefusal::Unknown => Status::not_found(refusal.to_string()),
        TokenRefusal::Used
        | TokenRefusal::Expired { .. }
        | TokenRefusal::WrongName { .. }
        | TokenRefusal::WrongEnvironment { .. } => Status::failed_precondition(refusal.to_string()),
        TokenRefusal::NameTaken { .. } => Status::already_exists(refusal.to_string()),
        TokenRefusal::Store(StoreError::Database(error))
            if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) =>
        {
            Status::already_exists("this key is in use already; make a new one")
        }
        TokenRefusal::Random | TokenRefusal::Store(_) => {
            tracing::error!(error = %refusal, "enrolment failed");
            Status::internal("the coordinator could not do it; its log says why")
        }
    }
}
