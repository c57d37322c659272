//! The attacks of one stolen server: A47 to A58.

use std::{net::TcpStream, time::Duration};

use consign_common::{
    name::Id,
    time::{Clock as _, SystemClock},
    tls::{Ca, Identity, Subject},
};
use consign_proto::v1::{
    Event, FetchRequest, LogChunk, PackPair, Refused, agent_message::Kind, agents_client::AgentsClient,
    fetch_request::What, operators_client::OperatorsClient,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{
    raw::Raw,
    stolen::{Stolen, hello, steal},
};

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
            let asked = world.runtime.block_on(operators.status(consign_proto::v1::StatusRequest {}));
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
                    let event = Event {
                        deployment,
                        sequence,
                        at_ms: 1,
                        body: body.into(),
                        journal_position: u64::MAX,
                    };
                    session.say(Kind::Event(event)).await;
                    let order = "../../etc/passwd".to_owned();
                    session
                        .say(Kind::Refused(Refused {
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
            crate::wait::until("others come in again", Duration::from_secs(20), || {
                world.dial(Some(&world.identity)).map(drop)
            });
        },
    },
];

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
