//! The one place where a call is let in: peer to caller, caller's role against the table, for every request of every
//! service, also those that no service has.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use consign_common::time::Clock;
use tonic::Status;
use tower::{Layer, Service};

use super::{AllowList, Caller, Identity, Peer, Role, roles};
use crate::audit::{self, Act, Refusals, verbs};

#[derive(Clone, Debug)]
pub struct AccessLayer {
    allow_list: Arc<AllowList>,
    clock: Arc<dyn Clock>,
    refusals: Refusals,
}

#[derive(Clone, Debug)]
pub struct Access<S> {
    inner: S,
    layer: AccessLayer,
}

impl AccessLayer {
    pub fn new(allow_list: Arc<AllowList>, clock: Arc<dyn Clock>, refusals: Refusals) -> Self {
        Self { allow_list, clock, refusals }
    }

    fn caller(&self, peer: Option<&Peer>) -> Result<Caller, Status> {
        Ok(match peer {
            Some(Peer::Anonymous { .. }) => Caller::new(Identity::Anonymous, Role::Anonymous),
            // Only root and our own user get as far as this.
            Some(Peer::Local { uid }) => Caller::new(Identity::Local { uid: *uid }, Role::Admin),
            Some(Peer::Certified { spki, certificate_ends, .. }) => self
                .allow_list
                .caller(*spki, *certificate_ends, self.clock.now())
                .ok_or_else(|| Status::unauthenticated("this key is not, or no longer, allowed here"))?,
            None => return Err(Status::unauthenticated("nobody is known on this connection")),
        })
    }

    fn admit(caller: &Caller, path: &str) -> Result<(), Status> {
        if roles::may_call(caller.role, path) {
            return Ok(());
        }
        tracing::warn!(caller = %caller.identity, role = caller.role.as_str(), path, "call refused");
        Err(match caller.role {
            Role::Anonymous => Status::unauthenticated("this port is for enrolment only"),
            Role::Expired => Status::unauthenticated("your certificate has ended; renew it first"),
            Role::Agent | Role::Viewer | Role::Deployer | Role::Ci | Role::Admin => {
                Status::permission_denied(format!("the role {} may not do this", caller.role.as_str()))
            }
        })
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;
    fn layer(&self, inner: S) -> Access<S> {
        Access { inner, layer: self.clone() }
    }
}

impl<S, Request, Answer> Service<http::Request<Request>> for Access<S>
where
    S: Service<http::Request<Request>, Response = http::Response<Answer>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    Answer: Default + Send + 'static,
{
    type Response = http::Response<Answer>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Request>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let caller = match self.layer.caller(peer) {
            Ok(caller) => caller,
            Err(status) => return Box::pin(async move { Ok(status.into_http()) }),
        };
        let path = request.uri().path();
        let act = verbs::verb(path).map(|verb| Act::new(verb, &caller, peer, self.layer.clock.now()));
        let refusals = self.layer.refusals.clone();
        if let Err(status) = AccessLayer::admit(&caller, path) {
            return Box::pin(async move {
                if let Some(act) = act {
                    refusals.record(act, &status).await;
                }
                Ok(status.into_http())
            });
        }
        request.extensions_mut().insert(caller);
        let call = self.inner.call(request);
        let Some(act) = act else { return Box::pin(call) };
        Box::pin(async move {
            let (answer, left) = audit::acting(act, call).await;
            // A verb that was carried out is in the log, whatever came after.
            let status = answer.as_ref().ok().and_then(|answer| Status::from_header_map(answer.headers()));
            if let (Some(act), Some(status)) = (left, status) {
                refusals.record(act, &status).await;
            }
            answer
        })
    }
}
