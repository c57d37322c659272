//! Webhooks: told in order, signed, once the other side is back; and nothing waits for them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{
    Owner, TestClock, World,
    agent::{publish, start as rollout},
    fleet::Server,
};
use consign_coordinator::serve::Options;
use consign_proto::v1::{self, ListWebhooksRequest, WebhookRequest};
use ring::hmac;
use tonic::Code;

const SECRET: &str = "correct horse battery staple";

/// One request, as it came.
#[derive(Clone, Debug)]
struct Got {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Got {
    fn event(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        let state = body["data"]["state"].as_str().unwrap_or_default();
        format!("{} {state}", body["type"].as_str().unwrap()).trim().to_owned()
    }

    /// Not with the code that made it.
    fn verify(&self) {
        let header = |name: &str| self.headers.get(name).unwrap().clone();
        let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), self.body);
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let given = header("webhook-signature");
        let given = STANDARD.decode(given.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, signed.as_bytes(), &given).unwrap();
    }
}

/// Answers 500 as often as it is told to.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    failures: Arc<AtomicU32>,
    refused: Arc<AtomicU32>,
}

impl Receiver {
    fn start(failures: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self {
            address,
            got: Arc::default(),
            failures: Arc::new(AtomicU32::new(failures)),
            refused: Arc::default(),
        };
        let (got, failures, refused) =
            (receiver.got.clone(), receiver.failures.clone(), receiver.refused.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let request = read(&stream);
                let fails = failures
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok();
                let status = if fails { "500 Internal Server Error" } else { "204 No Content" };
                if fails {
                    refused.fetch_add(1, Ordering::SeqCst);
                } else {
                    got.lock().unwrap().push(request);
                }
                let mut stream = stream;
                drop(write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
            }
        });
        receiver
    }

    async fn wait_for(&self, count: usize) -> Vec<Got> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let got = self.got.lock().unwrap().clone();
            if got.len() >= count {
                return got;
            }
            assert!(Instant::now() < until, "only {got:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn read(stream: &TcpStream) -> Got {
    let mut reader = BufReader::new(stream);
    let (mut headers, mut line) = (BTreeMap::new(), String::new());
    reader.read_line(&mut line).unwrap();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Got { headers, body: String::from_utf8(body).unwrap() }
}

fn options(owner: &Owner, dir: &std::path::Path, webhooks: &str) -> Options {
    let secret = dir.join("hook.secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let file = dir.join("webhooks.toml");
    fs::write(&file, webhooks).unwrap();
    Options { webhooks: Some(file), ..owner.options(dir) }
}

async fn world(webhooks: &str) -> World {
    let (owner, dir) = (Owner::new(), tempfile::tempdir().unwrap());
    let clock = Arc::new(TestClock::default());
    let coordinator = common::start(&options(&owner, dir.path(), webhooks), &clock).await.unwrap();
    World { owner, clock, coordinator, dir }
}

async fn listed(world: &World) -> Vec<v1::Webhook> {
    world.local().await.list_webhooks(ListWebhooksRequest {}).await.unwrap().into_inner().webhooks
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_nobody_listened_comes_in_its_order_and_signed() {
    let (all, staging) = (Receiver::start(1), Receiver::start(0));
    let world = world(&format!(
        r#"
[[webhook]]
name = "all"
url = "http://{}/hook?token=secret"
secret_file = "hook.secret"

[[webhook]]
name = "other"
url = "http://{}/"
secret_file = "hook.secret"
events = ["rollout.ended"]
environments = ["production"]
"#,
        all.address, staging.address
    ))
    .await;
    publish(&world, "1.0").await;
    let mut server = Server::new(&world, "web-1", &[]).await;
    let mut admin = world.admin().await;
    admin.start_rollout(rollout("1.0")).await.unwrap();
    let order = server.order().await;
    server.succeed(&order).await;

    let got = all.wait_for(2).await;
    assert_eq!(all.refused.load(Ordering::SeqCst), 1, "it was tried before");
    let events: Vec<String> = got.iter().map(Got::event).collect();
    assert_eq!(events, ["rollout.started running", "rollout.ended succeeded"]);
    got.iter().for_each(Got::verify);
    assert_ne!(got[0].headers["webhook-id"], got[1].headers["webhook-id"]);
    assert_eq!(got[0].headers["content-type"], "application/json");
    let body: serde_json::Value = serde_json::from_str(&got[1].body).unwrap();
    assert_eq!((&body["data"]["app"], &body["data"]["kind"]), (&"shop".into(), &"deploy".into()), "{body}");

    // Somebody else was told of nothing, and nobody learns more of an address than its host.
    // The other side has it a moment before that is durable here.
    let until = Instant::now() + Duration::from_secs(20);
    let shown = loop {
        let shown = listed(&world).await;
        if shown[0].waiting == 0 || Instant::now() > until {
            break shown;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let brief: Vec<_> =
        shown.iter().map(|one| (one.name.as_str(), one.host.as_str(), one.delivered)).collect();
    assert_eq!(brief, [("all", "127.0.0.1", 2), ("other", "127.0.0.1", 0)]);
    assert!(staging.got.lock().unwrap().is_empty());

    // A test reaches also who asked for other events.
    admin.test_webhook(WebhookRequest { name: "other".into() }).await.unwrap();
    assert_eq!(staging.wait_for(1).await[0].event(), "test");
    let unknown = admin.test_webhook(WebhookRequest { name: "nobody".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_waits_over_a_restart_is_given_up_after_a_day_and_can_be_tried_once_more() {
    let receiver = Receiver::start(u32::MAX);
    let file = format!(
        "[[webhook]]\nname = \"chat\"\nurl = \"http://{}/\"\nsecret_file = \"hook.secret\"\n",
        receiver.address
    );
    let world = world(&file).await;
    let mut admin = world.admin().await;
    admin.test_webhook(WebhookRequest { name: "chat".into() }).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while listed(&world).await[0].error.is_empty() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(listed(&world).await[0].error, "it answered 500");

    let World { owner, clock, coordinator, dir } = world;
    coordinator.stop().await;
    let coordinator = common::start(&options(&owner, dir.path(), &file), &clock).await.unwrap();
    let world = World { owner, clock, coordinator, dir };
    assert_eq!(listed(&world).await[0].waiting, 1);

    world.clock.advance(Duration::from_secs(25 * 3600));
    while listed(&world).await[0].given_up == 0 {
        assert!(Instant::now() < until + Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    receiver.failures.store(0, Ordering::SeqCst);
    let mut local = world.local().await;
    local.retry_webhook(WebhookRequest { name: "chat".into() }).await.unwrap();
    assert_eq!(receiver.wait_for(1).await[0].event(), "test");
    world.coordinator.stop().await;
}

/// What waits for the only webhook, once its last try has come to something.
async fn tried(world: &World) -> v1::Webhook {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let webhook = listed(world).await.remove(0);
        if !webhook.error.is_empty() || webhook.delivered > 0 {
            return webhook;
        }
        assert!(Instant::now() < until, "{webhook:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, to) = (listener.local_addr().unwrap(), elsewhere.address);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            read(&stream);
            let head = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{to}/\r\n");
            drop(write!(stream, "{head}content-length: 0\r\nconnection: close\r\n\r\n"));
        }
    });
    let world = world(&format!(
        "[[webhook]]\nname = \"chat\"\nurl = \"http://{address}/\"\nsecret_file = \"hook.secret\"\n"
    ))
    .await;
    world.local().await.test_webhook(WebhookRequest { name: "chat".into() }).await.unwrap();
    assert_eq!(tried(&world).await.error, "it answered 307");
    assert!(elsewhere.got.lock().unwrap().is_empty());
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_secret_is_exchanged_both_sign() {
    let receiver = Receiver::start(0);
    let (owner, dir) = (Owner::new(), tempfile::tempdir().unwrap());
    let (old, clock) = (dir.path().join("old.secret"), Arc::new(TestClock::default()));
    fs::write(&old, "the one that was there before\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o600)).unwrap();
    let file = format!(
        "[[webhook]]\nname = \"chat\"\nurl = \"http://{}/\"\nsecret_file = \"hook.secret\"\nold_secret_file = \"old.secret\"\n",
        receiver.address
    );
    let coordinator = common::start(&options(&owner, dir.path(), &file), &clock).await.unwrap();
    let world = World { owner, clock, coordinator, dir };
    world.local().await.test_webhook(WebhookRequest { name: "chat".into() }).await.unwrap();
    let got = receiver.wait_for(1).await.remove(0);
    let signed = format!("{}.{}.{}", got.headers["webhook-id"], got.headers["webhook-timestamp"], got.body);
    let tags: Vec<Vec<u8>> = got.headers["webhook-signature"]
        .split(' ')
        .map(|one| STANDARD.decode(one.strip_prefix("v1,").unwrap()).unwrap())
        .collect();
    for (secret, tag) in [SECRET, "the one that was there before"].iter().zip(&tags) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::verify(&key, signed.as_bytes(), tag).unwrap();
    }
    assert_eq!(tags.len(), 2);
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_believed_where_it_is_named() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream);
            let mut request = [0; 65_536];
            // Whoever does not believe the certificate ends the handshake.
            if tls.read(&mut request).is_ok() {
                let answer = "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                drop(tls.write_all(answer.as_bytes()));
            }
        }
    });
    for (line, delivered) in [("", 0), ("ca_file = \"ca.pem\"\n", 1)] {
        let (owner, dir) = (Owner::new(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("ca.pem"), cert.pem()).unwrap();
        let file = format!(
            "[[webhook]]\nname = \"chat\"\nurl = \"https://{address}/\"\nsecret_file = \"hook.secret\"\n{line}"
        );
        let clock = Arc::new(TestClock::default());
        let coordinator = common::start(&options(&owner, dir.path(), &file), &clock).await.unwrap();
        let world = World { owner, clock, coordinator, dir };
        world.local().await.test_webhook(WebhookRequest { name: "chat".into() }).await.unwrap();
        let webhook = tried(&world).await;
        assert_eq!(webhook.delivered, delivered, "{webhook:?}");
        assert!(delivered == 1 || webhook.error.contains("certificate"), "{webhook:?}");
        world.coordinator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_answers_keeps_no_rollout_waiting() {
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let world = world(&format!(
        "[[webhook]]\nname = \"silent\"\nurl = \"http://{}/\"\nsecret_file = \"hook.secret\"\n",
        silent.local_addr().unwrap()
    ))
    .await;
    publish(&world, "1.0").await;
    let mut server = Server::new(&world, "web-1", &[]).await;
    let began = Instant::now();
    let id = world.admin().await.start_rollout(rollout("1.0")).await.unwrap().into_inner().id;
    let order = server.order().await;
    server.succeed(&order).await;
    common::fleet::until(&world, &id, |rollout| rollout.state == "succeeded").await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(listed(&world).await[0].waiting, 2);
    world.coordinator.stop().await;
}
