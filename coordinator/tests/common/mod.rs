//! A coordinator in this process, on ports of its own, and clients that talk to it over real TLS.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test helper; each suite uses its part"
)]

pub mod agent;

pub mod fleet;

pub mod packed;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use consign_common::{
    digest::Sha256,
    name::Id,
    time::{Clock, SystemClock, UnixMs},
    tls::{self, Ca, Identity, Subject},
    trust::{
        AppTrust, CoordinatorPin, Envelope, Gate, Key, OrderingNumber, RoleKeys, Scheme, SigningKey,
        TRUST_ROOT_TYPE, TrustRoot,
    },
};
use consign_coordinator::{
    bundle::{Bundle, FirstOperator},
    serve::{Coordinator, Options, ServeError},
};
use consign_proto::v1::{
    CreateTokenRequest, CreateTokenResponse, EnrollRequest, EnrollResponse,
    enrolment_client::EnrolmentClient, operators_client::OperatorsClient,
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

/// The machine's clock, and an offset that a test turns.
#[derive(Debug, Default)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMs {
        SystemClock.now().plus(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }
}

/// What `consign init` makes.
pub struct Owner {
    pub ca: Ca,
    pub root_key: SigningKey,
    pub publisher: SigningKey,
    pub root: TrustRoot,
    pub admin: Identity,
    pub coordinator: Id,
}

pub const DAY: Duration = Duration::from_secs(24 * 3600);

impl Owner {
    pub fn new() -> Self {
        let now = SystemClock.now();
        let coordinator = Id::from_bytes([7; 16]);
        let ca = Ca::generate(coordinator.as_str(), now).unwrap();
        let (root_key, publisher) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let key = |key: &SigningKey, owner: &str| Key {
            scheme: Scheme::Ed25519,
            public: key.public().to_base64(),
            owner: owner.parse().unwrap(),
        };
        let role = |key: &SigningKey| RoleKeys { keys: vec![key.public().id()], threshold: 1 };
        let root = TrustRoot {
            version: 1,
            issued: now,
            expires: now.plus(DAY * 365),
            keys: [
                (root_key.public().id(), key(&root_key, "ada")),
                (publisher.public().id(), key(&publisher, "ci")),
            ]
            .into(),
            root: role(&root_key),
            roles: [].into(),
            apps: [(
                "shop".parse().unwrap(),
                AppTrust {
                    publishers: role(&publisher),
                    epoch: 1,
                    floor: OrderingNumber::default(),
                    config: None,
                },
            )]
            .into(),
            environments: [("staging".parse().unwrap(), Gate::PublisherOnly {})].into(),
            coordinators: vec![CoordinatorPin { id: coordinator.to_string(), ca_sha256: ca.pin() }],
            revoked: vec![],
            enrolment: None,
        };
        let admin = ca.issue_identity(&Subject::Operator { name: "ada".into() }, now, DAY).unwrap();
        Self { ca, root_key, publisher, root, admin, coordinator }
    }

    pub fn sign(&self, root: &TrustRoot) -> Vec<u8> {
        Envelope::sign(TRUST_ROOT_TYPE, root.to_payload(), &[&self.root_key]).to_vec()
    }

    pub fn bundle(&self) -> Bundle {
        let peer = self.admin.peer().unwrap();
        let operator = FirstOperator {
            name: "ada".parse().unwrap(),
            spki_sha256: peer.spki_sha256,
            certificate_expires: peer.not_after,
        };
        Bundle::new(self.coordinator.clone(), self.ca.to_pem(), &self.sign(&self.root), operator, None)
    }

    pub fn options(&self, dir: &Path) -> Options {
        let bundle = dir.join("bundle.json");
        std::fs::write(&bundle, self.bundle().to_bytes().unwrap()).unwrap();
        Options {
            state: dir.join("state"),
            listen: "127.0.0.1:0".parse().unwrap(),
            enrolment_listen: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            bundle: Some(bundle),
            health_programs: dir.join("health.d"),
        }
    }
}

pub struct World {
    pub owner: Owner,
    pub clock: Arc<TestClock>,
    pub coordinator: Coordinator,
    pub dir: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::of(Owner::new()).await
    }

    pub async fn of(owner: Owner) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::default());
        let options = owner.options(dir.path());
        let coordinator = start(&options, &clock).await.unwrap();
        Self { owner, clock, coordinator, dir }
    }

    /// Stops the coordinator and starts it again on what it kept.
    pub async fn restarted(self) -> Self {
        let Self { owner, clock, coordinator, dir } = self;
        coordinator.stop().await;
        let coordinator = start(&owner.options(dir.path()), &clock).await.unwrap();
        Self { owner, clock, coordinator, dir }
    }

    pub async fn channel(&self, identity: Option<&Identity>) -> Result<Channel, tonic::transport::Error> {
        let addresses = &self.coordinator.addresses;
        let address = if identity.is_some() { addresses.listen } else { addresses.enrolment_listen };
        let config = tls::client_config(identity, self.owner.ca.pin()).unwrap();
        let connector = TlsConnector::from(config);
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(tls::COORDINATOR_NAME).unwrap();
                io::Result::Ok(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        Endpoint::from_static("http://coordinator.consign").connect_with_connector(connect).await
    }

    pub async fn operators(&self, identity: &Identity) -> OperatorsClient<Channel> {
        OperatorsClient::new(self.channel(Some(identity)).await.unwrap())
    }

    pub async fn admin(&self) -> OperatorsClient<Channel> {
        self.operators(&self.owner.admin).await
    }

    pub async fn local(&self) -> OperatorsClient<Channel> {
        let path = self.coordinator.addresses.socket.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { io::Result::Ok(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let endpoint = Endpoint::from_static("http://coordinator.consign");
        OperatorsClient::new(endpoint.connect_with_connector(connect).await.unwrap())
    }

    pub async fn token(&self, name: &str, role: &str) -> Result<CreateTokenResponse, Status> {
        self.token_with(name, role, false).await
    }

    async fn token_with(&self, name: &str, role: &str, replace: bool) -> Result<CreateTokenResponse, Status> {
        let environment = if role == "agent" { "staging" } else { "" };
        let request = CreateTokenRequest {
            name: name.into(),
            environment: environment.into(),
            role: role.into(),
            ttl_seconds: 600,
            replace,
        };
        self.admin().await.create_token(request).await.map(tonic::Response::into_inner)
    }

    pub async fn redeem(&self, request: EnrollRequest) -> Result<EnrollResponse, Status> {
        let mut client = EnrolmentClient::new(self.channel(None).await.unwrap());
        client.enroll(request).await.map(tonic::Response::into_inner)
    }

    /// From nothing to an identity.
    pub async fn enrol(&self, name: &str, role: &str) -> Identity {
        self.enrol_with_csr(name, role).await.0
    }

    /// And the request that its key was in.
    pub async fn enrol_with_csr(&self, name: &str, role: &str) -> (Identity, Vec<u8>) {
        self.redeem_new(&self.token(name, role).await.unwrap(), name, role).await
    }

    /// Another identity for the same name: the one before ends.
    pub async fn enrol_anew(&self, name: &str, role: &str) -> Identity {
        let token = self.token_with(name, role, true).await.unwrap();
        self.redeem_new(&token, name, role).await.0
    }

    async fn redeem_new(&self, token: &CreateTokenResponse, name: &str, role: &str) -> (Identity, Vec<u8>) {
        let (csr, key_pkcs8) = Identity::generate_csr().unwrap();
        let environment = if role == "agent" { "staging" } else { "" };
        let answer = self.redeem(enroll_request(token, name, environment, csr.clone())).await.unwrap();
        (Identity { certificate: answer.certificate.to_vec().into(), key_pkcs8 }, csr)
    }
}

pub async fn start(options: &Options, clock: &Arc<TestClock>) -> Result<Coordinator, ServeError> {
    Coordinator::start(options, Arc::clone(clock) as Arc<dyn Clock>).await
}

pub fn enroll_request(
    token: &CreateTokenResponse,
    name: &str,
    environment: &str,
    csr: Vec<u8>,
) -> EnrollRequest {
    EnrollRequest {
        token_id: token.token_id.clone(),
        token_secret: token.token_secret.clone(),
        name: name.into(),
        environment: environment.into(),
        csr: csr.into(),
        agent_version: "0.1.0".into(),
        labels: [("role".to_owned(), "web".to_owned())].into(),
        sealing_key: String::new(),
    }
}

pub fn spki(identity: &Identity) -> Sha256 {
    identity.peer().unwrap().spki_sha256
}
