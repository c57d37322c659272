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

#[derive(Clone, Debug)]
pub struct AccessLayer {
    allow_list: Arc<AllowList>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Debug)]
pub struct Access<S> {
    inner: S,
    layer: AccessLayer,
}

impl AccessLayer {
    pub fn new(allow_list: Arc<AllowList>, clock: Arc<dyn Clock>) -> Self {
        Self { allow_list, clock }
    }

    fn admit(&self, peer: Option<&Peer>, path: &str) -> Result<Caller, Status> {
        let caller = match peer {
            Some(Peer::Anonymous { .. }) => Caller { identity: Identity::Anonymous, role: Role::Anonymous },
            // Only root and our own user get as far as this.
            Some(Peer::Local { uid }) => {
                Caller { identity: Identity::Local { uid: *uid }, role: Role::Admin }
            }
            Some(Peer::Certified { spki, certificate_ends, .. }) => self
                .allow_list
                .caller(*spki, *certificate_ends, self.clock.now())
                .ok_or_else(|| Status::unauthenticated("this key is not, or no longer, allowed here"))?,
            None => return Err(Status::unauthenticated("nobody is known on this connection")),
        };
        if roles::may_call(caller.role, path) {
            return Ok(caller);
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
        match self.layer.admit(request.extensions().get(), request.uri().path()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Box::pin(self.inner.call(request))
            }
            Err(status) => Box::pin(async move { Ok(status.into_http()) }),
        }
    }
}
