//! The session itself, and the way to it.

use std::sync::Arc;

use consign_common::trust::TrustRoot;
use consign_proto::v1::{
    EventAck, Heartbeat, Order, Query, Resend, TrustRoots as Offered, agent_message::Kind as Said,
    coordinator_message::Kind, resend,
};
use tokio::{net::TcpListener, time::timeout};

use super::world::{PATIENCE, World, deployment, event};
use crate::{
    fixture::{Authority, COORDINATOR},
    ports::{Answer, Foretold, Held, Inbound, Outbound, PlannedStep},
    session::{dial::Dialer, proxy::Proxies},
    status::Link,
};

#[tokio::test]
async fn says_who_it_is_and_carries_orders_and_events() {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Arc::default());
    let hello = world.hello().await;
    assert_eq!((hello.environment.as_str(), hello.root), ("staging", false));
    assert_eq!(hello.labels.get("role").map(String::as_str), Some("web"));
    assert_eq!(hello.open_deployments, [deployment().to_string()]);
    assert_eq!((hello.apps[0].app.as_str(), hello.apps[0].term), ("shop", 4));
    assert_eq!((hello.journal.as_str(), hello.journal_position), ("journal", 12));
    assert!(!hello.process.is_empty());
    assert!(matches!(agent.told().await, Inbound::Connected));
    let order = Order {
        document: "{}".into(),
        statements: vec!["s".into()],
        plan: "plan".into(),
        sealed: "sealed".into(),
    };
    world.say(Kind::Order(order)).await;
    let Inbound::Order { papers, connected } = agent.told().await else { panic!() };
    assert_eq!((papers.document, papers.statements), (b"{}".to_vec(), vec![b"s".to_vec()]));
    assert_eq!((papers.plan, papers.sealed), (Some(b"plan".to_vec()), Some(b"sealed".to_vec())));
    assert_eq!(connected, COORDINATOR, "as its certificate says");
    agent.events.send(Outbound::Again).await.unwrap();
    agent.events.send(event(3)).await.unwrap();
    let Said::Event(event) = world.news().await else { panic!() };
    assert_eq!((event.sequence, event.deployment), (3, deployment().to_string()));
    assert_eq!(event.journal_position, 12);
    world.say(Kind::EventAck(EventAck { deployment: deployment().to_string(), sequence: 3 })).await;
    assert!(matches!(agent.told().await, Inbound::EventAck { sequence: 3, .. }));
    assert!(matches!(agent.board.link(), Link::Connected { .. }));
}

#[tokio::test]
async fn carries_queries_and_their_answers() {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Arc::default());
    world.hello().await;
    assert!(matches!(agent.told().await, Inbound::Connected));
    let order = Order { document: "{}".into(), statements: vec!["s".into()], ..Order::default() };
    world.say(Kind::Query(Query { id: "q-7".into(), order: Some(order) })).await;
    let Inbound::Query { query, papers, connected } = agent.told().await else { panic!() };
    assert_eq!((papers.plan, papers.sealed), (None, None), "nothing is what is empty");
    let document = papers.document;
    assert_eq!((query.as_str(), document.as_slice(), connected.as_str()), ("q-7", &b"{}"[..], COORDINATOR));
    let step = PlannedStep {
        name: "migrate".into(),
        kind: "run",
        decision: "skip",
        because: "first_deploy is false".into(),
    };
    let (code, message) = ("used-up".to_owned(), "once only".to_owned());
    let held = Held { code: "approval-missing".to_owned(), message: "nobody".to_owned() };
    let answers = [
        Answer::Foretold { foretold: Foretold::Work { steps: vec![step] }, held: None },
        Answer::Foretold { foretold: Foretold::NoOp, held: Some(held) },
        Answer::Refused { code, message },
    ];
    for answer in answers {
        agent.events.send(Outbound::Answer { query: query.clone(), answer: answer.clone() }).await.unwrap();
        let Said::Answer(said) = world.news().await else { panic!() };
        let steps: Vec<_> =
            said.steps.iter().map(|step| (step.name.as_str(), step.decision.as_str())).collect();
        let codes = (said.code.as_str(), said.held_code.as_str(), said.held_message.as_str());
        let said = (said.query.as_str(), codes, said.no_op, steps);
        match answer {
            Answer::Foretold { held: None, .. } => {
                assert_eq!(said, ("q-7", ("", "", ""), false, vec![("migrate", "skip")]));
            }
            Answer::Foretold { held: Some(_), .. } => {
                assert_eq!(said, ("q-7", ("", "approval-missing", "nobody"), true, vec![]));
            }
            Answer::Refused { .. } => assert_eq!(said, ("q-7", ("used-up", "", ""), false, vec![])),
        }
    }
}

#[tokio::test]
async fn comes_back_after_a_hang_up_and_does_not_hold_up_the_manager_meanwhile() {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Arc::default());
    world.hello().await;
    assert!(matches!(agent.told().await, Inbound::Connected));
    world.hang_up();
    // More than every queue holds: what nobody hears is in the journal.
    for sequence in 0..200 {
        timeout(PATIENCE, agent.events.send(event(sequence))).await.expect("never blocked").unwrap();
    }
    while world.heard().await.is_some() {}
    assert!(matches!(world.heard().await.unwrap().kind, Some(Said::Hello(_))));
    assert!(matches!(agent.told().await, Inbound::Connected));
}

/// Some of what was on its way to an earlier session was discarded: the coordinator would take the rest for a gap.
#[tokio::test]
async fn says_nothing_that_was_meant_for_an_earlier_session() {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Arc::default());
    world.hello().await;
    assert!(matches!(agent.told().await, Inbound::Connected));
    let refused = || {
        let order = deployment();
        Outbound::Refused { order, code: "busy".into(), message: String::new() }
    };
    for message in [event(24), refused(), event(25), Outbound::Again, event(1)] {
        agent.events.send(message).await.unwrap();
    }
    assert!(matches!(world.news().await, Said::Refused(_)), "what answers this session's orders");
    let Said::Event(event) = world.news().await else { panic!() };
    assert_eq!(event.sequence, 1);
}

#[tokio::test]
async fn answers_at_once_when_it_is_asked_for_a_sign_of_life() {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Arc::default());
    world.hello().await;
    assert!(matches!(agent.told().await, Inbound::Connected));
    world.say(Kind::Heartbeat(Heartbeat { now_ms: 1, echo: 77 })).await;
    // The next one of its own accord, a minute from now, would have no number.
    let mut echo = 0;
    while echo == 0 {
        if let Some(Said::Heartbeat(beat)) = world.heard().await.unwrap().kind {
            echo = beat.echo;
        }
    }
    assert_eq!(echo, 77);
}

#[tokio::test]
async fn begins_a_new_session_when_the_coordinator_has_lost_what_it_had() {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Arc::default());
    world.hello().await;
    assert!(matches!(agent.told().await, Inbound::Connected));
    let lost = |sequence| {
        let lost = Some(resend::Lost::EventsAfter(sequence));
        Kind::Resend(Resend { deployment: deployment().to_string(), lost })
    };
    // Nothing to tell again: the session goes on.
    world.say(lost(9)).await;
    agent.events.send(Outbound::Again).await.unwrap();
    agent.events.send(event(1)).await.unwrap();
    assert!(matches!(world.news().await, Said::Event(_)));
    world.say(lost(3)).await;
    while world.heard().await.is_some() {}
    assert!(matches!(world.heard().await.unwrap().kind, Some(Said::Hello(_))));
    assert!(matches!(agent.told().await, Inbound::Connected));
}

#[tokio::test]
async fn gives_up_a_line_that_is_silent() {
    let mut world = World::new(|coordinator| coordinator.heartbeat_seconds = 1).await;
    let _agent = world.start(Arc::default());
    world.hello().await;
    let mut heartbeats = 0;
    while world.heard().await.is_some() {
        heartbeats += 1;
    }
    assert!((3..=6).contains(&heartbeats), "one each interval, for three intervals: {heartbeats}");
}

#[tokio::test]
async fn takes_trust_roots_and_says_why_it_refused_one() {
    let mut world = World::new(|_| {}).await;
    let agent = world.start(Arc::default());
    world.hello().await;
    let roots = vec![world.authority.root(2).into(), world.authority.root(3).into()];
    world.say(Kind::TrustRoots(Offered { envelopes: roots })).await;
    let Said::TrustRootTaken(taken) = world.news().await else { panic!() };
    assert_eq!((taken.version, taken.error.as_str()), (3, ""));
    assert_eq!(agent.roots.current().version, 3);
    world.say(Kind::TrustRoots(Offered { envelopes: vec![Authority::new().root(4).into()] })).await;
    let Said::TrustRootTaken(taken) = world.news().await else { panic!() };
    assert_eq!(taken.version, 3);
    assert!(taken.error.contains("not signed by enough"), "{}", taken.error);
}

#[tokio::test]
async fn a_coordinator_that_the_trust_root_does_not_name_gets_no_session() {
    let world = World::new(|_| {}).await;
    let stranger = Authority::new();
    let dialer = world.dialer();
    let connection = dialer.dial(Some(&world.authority.agent())).await.unwrap();
    let root = TrustRoot::open_pinned(&stranger.root(1), stranger.pin().sha256).unwrap();
    let refused = dialer.check_named(&connection, &root).unwrap_err().to_string();
    assert!(refused.contains("trust root 1 does not name"), "{refused}");
    let other_ca = Dialer { ca: stranger.ca.pin(), ..dialer };
    let refused = other_ca.dial(Some(&world.authority.agent())).await.unwrap_err().to_string();
    assert!(refused.contains("not the coordinator that was pinned"), "{refused}");
}

#[tokio::test]
async fn goes_through_a_proxy_where_the_environment_names_one() {
    let world = World::new(|_| {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let target = world.address;
    let asked = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::io::AsyncReadExt::read_u8(&mut client).await.unwrap());
        }
        let mut onward = tokio::net::TcpStream::connect(target).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut client, &mut onward).await);
        String::from_utf8(head).unwrap()
    });
    let proxies = Proxies::from_environment(|name| (name == "HTTPS_PROXY").then(|| proxy.clone())).unwrap();
    let dialer =
        Dialer { addresses: vec!["deploy.example:7443".into()], ca: world.authority.ca.pin(), proxies };
    let connection = dialer.dial(Some(&world.authority.agent())).await.unwrap();
    assert_eq!(connection.coordinator, COORDINATOR);
    drop(connection);
    let head = timeout(PATIENCE, asked).await.unwrap().unwrap();
    assert!(head.starts_with("CONNECT deploy.example:7443 "), "the name is the proxy's to resolve: {head}");
}
