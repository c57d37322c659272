//! Enrolment, renewal, and the agent that comes up from what they left.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use consign_common::{
    digest::Sha256,
    tls::{ClientAuth, Identity},
    trust::{JoinRole, JoinToken, TrustRootPin},
};
use consign_proto::v1::agent_message::Kind as Said;
use tokio::time::timeout;

use super::world::{PATIENCE, World, listen, word};
use crate::{
    config::Config,
    daemon::{self, DaemonError},
    fixture::COORDINATOR,
    identity::{
        TrustRoots,
        enroll::{self, EnrollError, Existing},
        renew::Renewal,
    },
    session::proxy::Proxies,
    state::StateError,
    status::{self, Link},
};

#[tokio::test]
async fn a_renewed_certificate_has_a_new_key_and_reaches_the_session() {
    let mut world = World::new(|_| {}).await;
    let agent = world.start(Arc::default());
    world.hello().await;
    let path = world.dir.path().join("identity.pem");
    let before = agent.identity.borrow().peer().unwrap();
    let renewal = Renewal {
        dialer: world.dialer(),
        roots: agent.roots.clone(),
        path: path.clone(),
        identity: agent.identity.clone(),
    };
    let peer = renewal.renew().await.unwrap();
    assert_ne!(peer.spki_sha256, before.spki_sha256);
    assert_eq!(Identity::read(&path).unwrap().peer().unwrap(), peer);
    while world.heard().await.is_some() {}
    assert!(matches!(world.heard().await.unwrap().kind, Some(Said::Hello(_))), "a session with the new key");
}

fn join(world: &World, address: SocketAddr, pin: Sha256) -> enroll::Request {
    let token = JoinToken {
        enrolment: vec![address.to_string()],
        addresses: vec![world.address.to_string()],
        coordinator: COORDINATOR.into(),
        ca_sha256: world.authority.ca.pin(),
        trust_root: TrustRootPin { version: 1, sha256: pin },
        id: "t1".into(),
        secret: STANDARD.encode([7; 32]),
        name: "web-1".parse().unwrap(),
        role: JoinRole::Agent { environment: "staging".parse().unwrap() },
    };
    enroll::Request {
        token: token.to_text().unwrap(),
        apps: vec!["shop".parse().unwrap()],
        users: vec!["shop".into()],
        units: vec!["shop.service".into()],
        labels: [("role".to_owned(), "web".to_owned())].into(),
        address: None,
        existing: Existing::Refuse,
        config: world.dir.path().join("etc/agent.toml"),
        state: world.dir.path().join("state"),
        apps_directory: "/srv".into(),
    }
}

async fn enrolment(world: &World) -> SocketAddr {
    listen(&world.authority, world.coordinator.clone(), ClientAuth::None).await
}

#[tokio::test]
async fn enrolling_leaves_an_identity_a_chain_and_the_servers_own_word() {
    let world = World::new(|_| {}).await;
    let mut request = join(&world, enrolment(&world).await, world.authority.pin().sha256);
    let enrolled = enroll::enroll(&request, Proxies::default(), |preview| preview.server.as_str() == "web-1");
    let enrolled = enrolled.await.unwrap();
    assert_eq!(enrolled.trust_root_version, 2);
    let config = Config::read(&request.config).unwrap();
    assert_eq!(config.word.allowances[0].users, ["shop"]);
    assert_eq!(config.word.labels, word().labels);
    let roots = TrustRoots::open(&request.state.join("trust-roots"), &config.agent.trust_root).unwrap();
    assert_eq!(roots.current().version, 2);
    let identity = request.state.join("identity.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&identity).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Identity::read(&identity).unwrap().peer().unwrap().spki_sha256, enrolled.key);
    let again = enroll::enroll(&request, Proxies::default(), |_| true).await;
    assert!(matches!(again, Err(EnrollError::Already { .. })));
    request.existing = Existing::Replace;
    let replaced = enroll::enroll(&request, Proxies::default(), |_| true).await.unwrap();
    assert_ne!(replaced.key, enrolled.key);
}

#[tokio::test]
async fn a_failed_enrolment_leaves_nothing_behind() {
    let world =
        World::new(|coordinator| coordinator.refuse_enrolment = Some("token-used: \u{1b}[31mask")).await;
    let address = enrolment(&world).await;
    let good = World::new(|_| {}).await;
    let good_address = enrolment(&good).await;
    let pin = world.authority.pin().sha256;
    let stranger = Sha256::of(b"another trust root");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for (world, request, confirmed, expected) in [
        (&world, join(&world, address, pin), true, "token-used: \\x1b[31mask"),
        (&world, join(&world, address, pin), false, "not confirmed"),
        (&world, join(&world, nobody, pin), true, "is not reachable"),
        (&world, join(&world, good_address, pin), true, "not the coordinator that was pinned"),
        (&good, join(&good, good_address, stranger), true, "not the one that the token pins"),
    ] {
        let refused =
            enroll::enroll(&request, Proxies::default(), |_| confirmed).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert!(!request.config.exists(), "{expected}");
        let left: Vec<_> = std::fs::read_dir(&request.state)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock" && name != "version")
            .collect();
        assert!(left.is_empty(), "{expected}: {left:?}");
        let staged = world.dir.path().join("etc/agent.toml.enrolling");
        assert!(!staged.exists(), "{expected}");
    }
}

#[tokio::test]
async fn the_agent_comes_up_from_what_enrolment_left_and_alone() {
    let mut world = World::new(|_| {}).await;
    let request = join(&world, enrolment(&world).await, world.authority.pin().sha256);
    enroll::enroll(&request, Proxies::default(), |_| true).await.unwrap();
    let config = Config::read(&request.config).unwrap();
    let idle = |parts| async move {
        let _parts: daemon::Parts = parts;
        std::future::pending().await
    };
    let running = tokio::spawn(daemon::run(Path::new("agent.toml"), config.clone(), idle));
    assert_eq!(world.hello().await.trust_root_version, 2);
    let socket = request.state.join("status.sock");
    let connected = timeout(PATIENCE, async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            let socket = socket.clone();
            let live =
                tokio::task::spawn_blocking(move || status::ask(&socket)).await.unwrap().unwrap().unwrap();
            if let Link::Connected { coordinator, .. } = live.coordinator {
                return coordinator;
            }
        }
    });
    assert_eq!(connected.await.unwrap(), COORDINATOR);
    let second = daemon::run(Path::new("agent.toml"), config, idle).await;
    assert!(matches!(second, Err(DaemonError::State(StateError::InUse { .. }))), "{second:?}");
    running.abort();
}
