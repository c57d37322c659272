//! The attacks of one stolen server: A47 to A58.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome, log},
    digest::Sha256,
    name::Id,
    plan::Phase,
    time::{Clock as _, SystemClock},
    tls::{Ca, Identity, Subject},
    trust::{JoinToken, Order, OrderKind, RECEIPT_FORMAT, Receipt, ReceiptKey, SigningKey, StepReceipt},
};
use consign_proto::v1::{
    self, EnrollRequest, FetchRequest, Hello, LogChunk, PackPair, Refused, agent_message::Kind as Said,
    agents_client::AgentsClient, coordinator_message::Kind, enrolment_client::EnrolmentClient,
    fetch_request::What, operators_client::OperatorsClient,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{
    raw::Raw,
    stolen::{PATIENCE, Stolen, hello, steal},
};
use crate::wait::until;

#[derive(Clone, Copy, Debug)]
pub struct Attack {
    pub name: &'static str,
    /// What is sent, and what comes of it: for the table.
    pub sends: &'static str,
    pub comes: &'static str,
    pub(super) play: fn(&mut Stolen),
}

const METHOD: &str = "/consign.v1.Agents/Fetch";

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "a47-no-certificate",
        sends: "a call without a client's certificate",
        comes: "no connection",
        play: |world| {
            not_let_in(world, None);
        },
    },
    Attack {
        name: "a47-another-ca",
        sends: "a certificate for this server by another CA of the same name; one for the coordinator itself",
        comes: "no connection",
        play: |world| {
            let stranger = Ca::generate("c0ffee", SystemClock.now()).unwrap();
            let own = world.identity.peer().unwrap().subject;
            for subject in [
                own,
                Subject::Coordinator { id: "c0ffee".into() },
                Subject::Operator { name: "admin".into() },
            ] {
                let forged =
                    stranger.issue_identity(&subject, SystemClock.now(), Duration::from_secs(3600)).unwrap();
                not_let_in(world, Some(&forged));
            }
        },
    },
    Attack {
        name: "a47-certificate-without-its-key",
        sends: "another server's certificate with the stolen key",
        comes: "no connection",
        play: |world| {
            let (other, _) = steal(&world.operator, world.directory.path(), "web-3");
            let mixed =
                Identity { certificate: other.certificate, key_pkcs8: world.identity.key_pkcs8.clone() };
            not_let_in(world, Some(&mixed));
        },
    },
    Attack {
        name: "a47-agent-as-operator",
        sends: "a server's certificate, where operators are",
        comes: "`permission-denied`",
        play: |world| {
            let mut operators = OperatorsClient::new(world.dial(Some(&world.identity)).unwrap());
            let asked = world.runtime.block_on(operators.status(v1::StatusRequest {}));
            assert_eq!(asked.unwrap_err().code(), Code::PermissionDenied);
        },
    },
    Attack {
        name: "a47-removed-while-connected",
        sends: "nothing: it stays in a session while an operator removes the server",
        comes: "the session ends within a second, and no other begins",
        play: |world| {
            let (identity, _) = steal(&world.operator, world.directory.path(), "web-4");
            let mut session = world.session(&identity, hello()).unwrap();
            world.operator.ok(&["server", "remove", "web-4"]);
            let ended = world.runtime.block_on(session.end(Duration::from_secs(1)));
            assert!(ended.is_some(), "the session is open still");
            assert!(world.session(&identity, hello()).is_err());
        },
    },
    Attack {
        name: "a56-artifacts-of-no-order",
        sends: "a request for the manifest and the pack of an artifact that this server was not ordered to run; for names that are paths",
        comes: "refused, not a byte is sent",
        play: |world| {
            let mut agents = world.agents();
            let pack = |to: &str| What::Pack(PackPair { from: String::new(), to: to.into() });
            let digest = world.artifact.clone();
            let names = [
                What::Manifest(digest.clone()),
                pack(&digest),
                pack("../../consign.db"),
                What::Manifest("../ca.pem".into()),
                What::Manifest(String::new()),
            ];
            for what in names {
                let request = FetchRequest { what: Some(what.clone()), offset: 0 };
                let came = world.runtime.block_on(async {
                    let mut chunks = agents.fetch(request).await?.into_inner();
                    chunks.message().await.map(|chunk| chunk.map_or(0, |chunk| chunk.data.len()))
                });
                assert!(came.is_err(), "{what:?}: {came:?}");
            }
        },
    },
    Attack {
        name: "a57-events-of-no-deployment",
        sends: "events, refusals and journal bodies for deployments and orders that are not this server's; sequence jumps to 2^64 - 1",
        comes: "not taken: the session ends, or goes on without them",
        play: |world| {
            for (sequence, body) in [(1, "{}"), (u64::MAX, "{\"event\":\"ended\"}"), (0, "[")] {
                let mut session = world.session(&world.identity, hello()).unwrap();
                let deployment = Id::from_bytes([9; 16]).to_string();
                world.runtime.block_on(async {
                    let event = v1::Event {
                        deployment,
                        sequence,
                        at_ms: 1,
                        body: body.into(),
                        journal_position: u64::MAX,
                    };
                    session.say(Said::Event(event)).await;
                    let order = "../../etc/passwd".to_owned();
                    session
                        .say(Said::Refused(Refused {
                            order,
                            code: "below-floor".into(),
                            message: "x".repeat(1 << 20),
                        }))
                        .await;
                    session.end(Duration::from_millis(300)).await
                });
            }
            let rollouts = world.operator.json(&["rollout", "list"]);
            assert_eq!(rollouts.as_array().map(Vec::len), Some(0), "{rollouts}");
        },
    },
    Attack {
        name: "a58-logs-of-no-deployment",
        sends: "64 MiB of log records for a deployment that is not this server's",
        comes: "not taken, and nothing is kept",
        play: |world| {
            let mut agents = world.agents();
            let before = bytes_below(world.coordinator.state());
            let answer = world.runtime.block_on(async {
                let (chunks, queue) = tokio::sync::mpsc::channel(4);
                let sending = tokio::spawn(async move {
                    for at in 0..64_u64 {
                        let chunk = LogChunk {
                            deployment: Id::from_bytes([9; 16]).to_string(),
                            attempt: "deploy-0-1".into(),
                            offset: at << 20,
                            records: vec![b'x'; 1 << 20].into(),
                        };
                        if chunks.send(chunk).await.is_err() {
                            return;
                        }
                    }
                });
                let answer = async {
                    let mut acks = agents.logs(ReceiverStream::new(queue)).await?.into_inner();
                    acks.message().await
                };
                let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
                sending.abort();
                answer
            });
            assert!(!matches!(answer, Ok(Ok(Some(_)))), "it was acknowledged: {answer:?}");
            let grown = bytes_below(world.coordinator.state()).saturating_sub(before);
            assert!(grown < 4 << 20, "{grown} bytes more on disk");
        },
    },
    Attack {
        name: "a57-an-end-that-is-taken-back",
        sends: "of its own deployment that it succeeded, then that it failed, then that it succeeded",
        comes: "the first end counts; what comes after it is neither kept nor acknowledged",
        play: |world| {
            let mut own = world.ordered(hello(), &[]);
            let succeeded = Event::Ended { result: DeploymentOutcome::Succeeded { tolerated: vec![] } };
            let failed = Event::Ended { result: DeploymentOutcome::Failed { because: "no".into() } };
            world.runtime.block_on(own.say(&succeeded));
            let rollout = own.order.rollout.clone();
            until("the rollout has ended", PATIENCE, || match world.state_of(&rollout).as_str() {
                "succeeded" => Ok(()),
                state => Err(state.to_owned()),
            });
            for again in [&failed, &succeeded, &failed] {
                world.runtime.block_on(own.say(again));
            }
            let acknowledged =
                world.runtime.block_on(own.session.hear(Duration::from_secs(2), |kind| match kind {
                    Kind::EventAck(ack) if ack.sequence > 2 => Some(ack.sequence),
                    _ => None,
                }));
            assert_eq!(acknowledged, None, "what came after the end was acknowledged");
            assert_eq!(world.state_of(&rollout), "succeeded");
            let shown = world.operator.json(&["server", "show", "web-2"]);
            assert_eq!(shown["apps"][0]["rearmed_since_ms"], 0, "{shown}");
        },
    },
    Attack {
        name: "a58-logs-of-its-own-without-end",
        sends: "output of its own deployment, 1 MiB at a time as fast as it goes, until another server's deployment is through",
        comes: "taken, up to the quota; the other server's rollout goes through meanwhile",
        play: |world| {
            let mut own = world.ordered(hello(), &["talk"]);
            let attempt: Attempt = "deploy-0-1".parse().unwrap();
            world.runtime.block_on(own.say(&Event::Started { attempt, boot_id: "stolen".into() }));
            let mut agents = world.agents();
            let deployment = own.order.deployment.to_string();
            let mut records = Vec::new();
            while records.len() < 900 << 10 {
                log::encode_into(&mut records, SystemClock.now(), log::Stream::Stdout, &[b'x'; 30 << 10]);
            }
            let taken = Arc::new(AtomicU64::new(0));
            let flood = world.runtime.spawn({
                let taken = taken.clone();
                async move {
                    let (chunks, queue) = tokio::sync::mpsc::channel(4);
                    let length = records.len() as u64;
                    tokio::spawn(async move {
                        for at in 0_u64.. {
                            let chunk = LogChunk {
                                deployment: deployment.clone(),
                                attempt: "deploy-0-1".into(),
                                offset: at * length,
                                records: records.clone().into(),
                            };
                            // Bounded by the disk that the test may use.
                            if at * length > 1 << 30 || chunks.send(chunk).await.is_err() {
                                return;
                            }
                        }
                    });
                    let mut acks = agents.logs(ReceiverStream::new(queue)).await?.into_inner();
                    while let Some(ack) = acks.message().await? {
                        taken.store(ack.offset, Ordering::Release);
                    }
                    Ok::<_, tonic::Status>(())
                }
            });
            until("the flood has begun", PATIENCE, || match taken.load(Ordering::Acquire) {
                0 => Err("nothing was taken"),
                _ => Ok(()),
            });
            world.operator.ok(&[
                "rollout",
                "start",
                "app@1.0.0",
                "--env",
                "staging",
                "--only",
                "web-1",
                "--force",
                "--queue",
                "queue",
            ]);
            let through = || {
                let shown = world.operator.json(&["server", "show", "web-1"]);
                if shown["apps"][0]["good"] == world.artifact.as_str() { Ok(()) } else { Err(shown) }
            };
            // An environment has one rollout of an app at a time: the stolen server's ends, and it talks on.
            let ended = Event::Ended { result: DeploymentOutcome::Succeeded { tolerated: vec![] } };
            world.runtime.block_on(own.say(&ended));
            until("the other server's deployment is through", PATIENCE, through);
            assert!(taken.load(Ordering::Acquire) > 0);
            flood.abort();
        },
    },
    Attack {
        name: "a59-receipts-of-what-was-not",
        sends: "receipts, rightly signed with its own key: with a step that the deployment does not have, of another artifact, of another rollout, in another server's name, of another server's deployment",
        comes: "not taken; that of what was ordered is, and stands",
        play: |world| {
            let certified = SigningKey::from_pkcs8(&world.identity.key_pkcs8).unwrap();
            let key = SigningKey::generate().unwrap();
            let endorsement = ReceiptKey::endorse(&"web-2".parse().unwrap(), &certified, &key.public());
            let hello = Hello { receipt_key: endorsement.to_vec().into(), ..hello() };
            let mut own = world.ordered(hello, &["talk"]);
            world.runtime.block_on(
                own.say(&Event::Ended { result: DeploymentOutcome::Succeeded { tolerated: vec![] } }),
            );
            let rollout = own.order.rollout.clone();
            until("the rollout has ended", PATIENCE, || match world.state_of(&rollout).as_str() {
                "succeeded" => Ok(()),
                state => Err(state.to_owned()),
            });
            let honest = receipt(&own.order, "talk");
            let others = other_deployments(world);
            let changed = |change: &dyn Fn(&mut Receipt)| {
                let mut receipt = honest.clone();
                change(&mut receipt);
                receipt
            };
            let mut lies = vec![
                receipt(&own.order, "never_planned"),
                changed(&|receipt| receipt.manifest = Sha256::of(b"another")),
                changed(&|receipt| receipt.rollout = Id::from_bytes([9; 16])),
                changed(&|receipt| receipt.server = "web-1".parse().unwrap()),
            ];
            for other in &others {
                lies.push(changed(&|receipt| receipt.deployment = other.clone()));
            }
            let mut say = |receipt: &Receipt, within| {
                let envelope = receipt.sign(&key).to_vec().into();
                world.runtime.block_on(async {
                    assert!(own.session.say(Said::Receipt(v1::Receipt { envelope })).await);
                    let acknowledged = |kind: &Kind| match kind {
                        Kind::ReceiptAck(ack) => Some(ack.deployment.clone()),
                        _ => None,
                    };
                    own.session.hear(within, acknowledged).await
                })
            };
            for lie in &lies {
                assert_eq!(say(lie, Duration::from_millis(700)), None, "{lie:?}");
            }
            assert_eq!(say(&honest, PATIENCE), Some(honest.deployment.to_string()));
        },
    },
    Attack {
        name: "a53-names",
        sends: "with a token that was made for it, names that are paths, hold a NUL, a line's end or a look-alike, are empty or of 4 KiB; an operator asks for tokens for such names",
        comes: "refused, and the token is worth what it was: the right name enrols with it",
        play: |world| {
            let long = "x".repeat(4096);
            let names =
                ["../../etc", "..", "a\0b", "web-5\n", "web\u{2010}5", "wеb-5", "web-5/", "WEB-5", "", &long];
            for name in names.iter().filter(|name| !name.contains('\0')) {
                let ran =
                    world.operator.run(&["server", "token", &format!("--name={name}"), "--env", "staging"]);
                assert_ne!(ran.code, 0, "{name:?}: {}", ran.stdout);
            }
            let token = world.operator.ok(&["server", "token", "--name", "web-5", "--env", "staging"]);
            let token = JoinToken::parse(&token).unwrap();
            let (csr, _) = Identity::generate_csr().unwrap();
            let secret = token.secret_bytes().unwrap();
            let request = |name: &str| EnrollRequest {
                token_id: token.id.clone(),
                token_secret: secret.clone().into(),
                name: name.into(),
                environment: "staging".into(),
                csr: csr.clone().into(),
                ..EnrollRequest::default()
            };
            let enrol = |name: &str| {
                let mut client =
                    EnrolmentClient::new(world.dial_at(&world.coordinator.enrolment, None).unwrap());
                world.runtime.block_on(client.enroll(request(name)))
            };
            for name in names {
                assert!(enrol(name).is_err(), "{name:?} was let in");
            }
            let servers = world.operator.json(&["server", "list"]);
            let names: Vec<&str> =
                servers.as_array().unwrap().iter().filter_map(|server| server["name"].as_str()).collect();
            assert!(names.iter().all(|name| name.starts_with("web-") && name.len() == 5), "{names:?}");
            let identity = enrol("web-5").unwrap().into_inner().identity;
            assert!(identity.starts_with("consign://agent/"), "{identity}");
            world.operator.ok(&["server", "show", "web-5"]);
        },
    },
    Attack {
        name: "a50-giant-length",
        sends: "a message that claims 4 GiB, on 64 streams",
        comes: "refused before memory is given to it",
        play: |world| {
            raw(world, async |raw| {
                for _ in 0..64 {
                    let stream = raw.call(METHOD).await?;
                    raw.message(stream, u32::MAX, &[0; 1000]).await?;
                }
                Ok(())
            });
        },
    },
    Attack {
        name: "a49-rapid-reset",
        sends: "20 000 calls, each reset at once",
        comes: "the connection is closed",
        play: |world| {
            raw(world, async |raw| {
                for _ in 0..20_000 {
                    let stream = raw.call(METHOD).await?;
                    raw.reset(stream).await?;
                }
                Ok(())
            });
        },
    },
    Attack {
        name: "a49-frames-of-nothing",
        sends: "50 000 PING, SETTINGS and empty DATA frames",
        comes: "the connection is closed, or they are read and forgotten",
        play: |world| {
            raw(world, async |raw| {
                let stream = raw.call(METHOD).await?;
                for _ in 0..16_000 {
                    raw.ping().await?;
                    raw.settings().await?;
                    raw.nothing(stream).await?;
                }
                Ok(())
            });
        },
    },
    Attack {
        name: "a49-headers-without-end",
        sends: "64 MiB of CONTINUATION frames",
        comes: "the connection is closed",
        play: |world| {
            raw(world, async |raw| {
                let stream = raw.open_headers().await?;
                for _ in 0..4_900 {
                    raw.more_headers(stream).await?;
                }
                Ok(())
            });
        },
    },
    Attack {
        name: "a49-half-open-handshakes",
        sends: "800 connections that never say a word, to both ports",
        comes: "each address has its share of handshakes; others still come in",
        play: |world| {
            let mut open = Vec::new();
            for address in [&world.coordinator.address, &world.coordinator.enrolment] {
                for _ in 0..400 {
                    open.extend(TcpStream::connect(address));
                }
            }
            assert!(open.len() > 700, "{} connections", open.len());
            // The honest server's session goes on under all this; an operator comes in over the machine's own socket.
            std::thread::sleep(Duration::from_millis(500));
            assert!(!world.coordinator.is_gone());
            drop(open);
            until("others come in again", Duration::from_secs(20), || {
                world.dial(Some(&world.identity)).map(drop)
            });
        },
    },
];

/// That the talking step succeeded.
fn receipt(order: &Order, step: &str) -> Receipt {
    let OrderKind::Deploy { manifest, .. } = &order.order else { panic!("{order:?}") };
    Receipt {
        format: RECEIPT_FORMAT.into(),
        server: "web-2".parse().unwrap(),
        environment: order.environment.clone(),
        order: order.id.clone(),
        rollout: order.rollout.clone(),
        deployment: order.deployment.clone(),
        app: order.app.clone(),
        manifest: *manifest,
        result: DeploymentOutcome::Succeeded { tolerated: vec![] },
        steps: vec![StepReceipt {
            name: step.parse().unwrap(),
            phase: Phase::Deploy,
            attempts: 1,
            result: StepOutcome::Succeeded,
            log_sha256: Sha256::of(b""),
            log_length: 0,
        }],
        started: SystemClock.now(),
        ended: SystemClock.now(),
        boot_id: "stolen".into(),
    }
}

/// Deployments of the honest server.
fn other_deployments(world: &Stolen) -> Vec<Id> {
    // Published again, for what is signed once is deployed once.
    let source = world.directory.path().join("source");
    world.operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", "1.0.0"]);
    let ran = world.operator.run(&[
        "rollout",
        "start",
        "app@1.0.0",
        "--env",
        "staging",
        "--only",
        "web-1",
        "--force",
        "--follow",
    ]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let rollouts = world.operator.json(&["rollout", "list"]);
    let id = rollouts[0]["id"].as_str().unwrap();
    let shown = world.operator.json(&["rollout", "show", id]);
    let deployments = shown["deployments"].as_array().expect("a list");
    let found = deployments.iter().filter_map(|deployment| deployment["id"].as_str()?.parse().ok());
    let found: Vec<Id> = found.collect();
    assert!(!found.is_empty(), "{shown}");
    found
}

fn not_let_in(world: &Stolen, identity: Option<&Identity>) {
    let Ok(channel) = world.dial(identity) else { return };
    let request = FetchRequest { what: Some(What::Manifest(world.artifact.clone())), offset: 0 };
    let came = world.runtime.block_on(AgentsClient::new(channel).fetch(request));
    assert!(came.is_err(), "it was let in");
}

/// Sends by hand until it is done or the other end has had enough; then the other end has a while to close.
fn raw(world: &Stolen, send: impl AsyncFnOnce(&mut Raw) -> std::io::Result<()>) {
    world.runtime.block_on(async {
        let mut raw = Raw::connect(&world.coordinator.address, &world.identity, world.ca).await.unwrap();
        drop(tokio::time::timeout(Duration::from_secs(5), send(&mut raw)).await);
        drop(tokio::time::timeout(Duration::from_millis(500), raw.closed()).await);
    });
}

fn bytes_below(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
