//! The audit log as people meet it: who did what, what a server says it ran, and what somebody with the database cannot
//! hide; and webhooks over a coordinator that is killed.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::mpsc,
    time::Duration,
};

use consign_tests::wait::until;

use crate::{
    gates::Gated,
    scene::{ACTIVATE, Scene},
};

const LONG: Duration = Duration::from_secs(60);

/// What somebody does who has the database, while nobody looks.
fn tamper(scene: &mut Scene, script: &str) {
    scene.coordinator.kill();
    let database = scene.coordinator.state().join("consign.db");
    let program = format!(
        r#"
import hashlib, json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for name in ("audit_grows_at_its_end", "audit_is_not_altered", "audit_is_not_deleted"):
    db.execute("DROP TRIGGER IF EXISTS " + name)
{script}
"#
    );
    let ran = Command::new("python3").args(["-c", &program]).arg(&database).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    scene.coordinator.launch();
}

/// The receipt comes after the end of its deployment.
fn receipts(scene: &Scene, count: usize) -> serde_json::Value {
    until("receipts", LONG, || {
        let shown = scene.operator.json(&["audit", "receipts", "app@1.0.0", "--env", "staging"]);
        if shown.as_array().unwrap().len() == count { Ok(shown) } else { Err(shown) }
    })
}

#[test]
fn what_was_done_can_be_read_and_what_was_changed_since_is_found() {
    let mut scene = Scene::start(&["web-1"]);
    let step = format!("\n[[step]]\nname = \"talk\"\nshell = \"echo hello\"\n{ACTIVATE}");
    scene.publish("1.0.0", &step, &[]);
    assert_eq!(scene.roll_out("1.0.0").code, 0);

    // The server's own word: which steps, how they ended, and what they wrote, by digest.
    let receipt = receipts(&scene, 1)[0].clone();
    assert_eq!((&receipt["server"], &receipt["result"]), (&"web-1".into(), &"succeeded".into()), "{receipt}");
    assert_eq!(receipt["key"]["mark"], "told", "nobody has accepted the server: {receipt}");
    let steps = receipt["steps"].as_array().unwrap();
    assert_eq!((&steps[0]["name"], &steps[1]["name"]), (&"talk".into(), &"activate".into()), "{receipt}");
    assert!(steps[0]["log_length"].as_u64().unwrap() > 5, "{receipt}");

    let verified = scene.operator.json(&["audit", "verify"]);
    assert_eq!(verified["receipts"], 1, "{verified}");
    let listed = scene.operator.ok(&["audit", "list", "--app", "app"]);
    for word in [
        "artifact publish",
        "rollout start",
        "app@1.0.0",
        "rollout: succeeded",
        "receipt",
        "server web-1 (agent)",
    ] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    let exported = scene.operator.ok(&["audit", "export"]);
    let check = "
import base64, hashlib, json, sys
before = bytes(32)
for line in sys.stdin:
    line = json.loads(line)
    before = hashlib.sha256(before + line['entry'].encode()).digest()
    assert before.hex() == line['hash'], line
print('whole')
";
    let mut other = Command::new("python3")
        .args(["-c", check])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    other.stdin.take().unwrap().write_all(exported.as_bytes()).unwrap();
    let other = other.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&other.stdout).trim(),
        "whole",
        "another program makes the same hashes"
    );

    let backup = scene.directory.path().join("backup");
    scene.coordinator.kill();
    scene.coordinator.back_up(&backup);
    scene.coordinator.launch();
    let last = verified["entries"].as_u64().unwrap();
    for (script, words) in [
        ("db.execute(\"DELETE FROM receipts\")", "receipts that the audit log names were removed"),
        (
            "db.execute(\"UPDATE audit SET entry = replace(entry, 'rollout start', 'rollout stark') WHERE entry LIKE '%rollout start%'\")",
            "was altered",
        ),
        ("db.execute(\"DELETE FROM audit WHERE sequence = 3\")", "entry 3 was removed"),
        (
            "a, b = [db.execute('SELECT entry, hash FROM audit WHERE sequence = ?', (n,)).fetchone() for n in (2, 4)]\n\
             db.execute('UPDATE audit SET entry = ?, hash = ? WHERE sequence = 2', b)\n\
             db.execute('UPDATE audit SET entry = ?, hash = ? WHERE sequence = 4', a)",
            "entry 2 was put elsewhere",
        ),
        ("db.execute(\"DELETE FROM audit WHERE sequence > 4\")", "entries after"),
        (
            "before = bytes.fromhex(db.execute('SELECT hash FROM audit WHERE sequence = 3').fetchone()[0])\n\
             for sequence, text in db.execute('SELECT sequence, entry FROM audit WHERE sequence > 3 ORDER BY sequence').fetchall():\n\
             \x20   entry = json.loads(text)\n\
             \x20   if sequence == 4: entry['who']['identity'] = 'mallory'\n\
             \x20   text = json.dumps(entry, separators=(',', ':'))\n\
             \x20   before = hashlib.sha256(before + text.encode()).digest()\n\
             \x20   db.execute('UPDATE audit SET entry = ?, hash = ? WHERE sequence = ?', (text, before.hex(), sequence))",
            "the chain made anew",
        ),
    ] {
        tamper(&mut scene, script);
        let told = scene.operator.run(&["audit", "verify"]);
        assert_eq!(told.code, 1, "{words}: {}{}", told.stdout, told.stderr);
        assert!(told.stderr.contains(words), "{words}: {}", told.stderr);
        if words.contains("anew") || words.contains("after") {
            let status = scene.operator.run(&["status"]);
            assert!(status.stderr.contains("AUDIT LOG WAS REWRITTEN"), "{}", status.stderr);
        }
        scene.coordinator.kill();
        scene.coordinator.restore(&backup);
        scene.coordinator.launch();
    }

    // The agent remembers too, and says so on both sides.
    scene.operator.wait_online("web-1");
    tamper(&mut scene, "db.execute(\"DELETE FROM audit WHERE sequence > 4\")");
    until("the coordinator says it", LONG, || {
        let status = scene.operator.json(&["status"]);
        if status["audit_disputes"][0]["server"] == "web-1" { Ok(()) } else { Err(status) }
    });
    assert!(scene.operator.ok(&["server", "show", "web-1"]).contains("rewritten"));
    let own = until("the agent says it", LONG, || {
        let own = scene.agents[0].command(&["status"]).output().unwrap();
        let own = String::from_utf8_lossy(&own.stdout).into_owned();
        if own.contains("REWRITTEN") { Ok(own) } else { Err(own) }
    });
    assert!(own.contains("Audit log"), "{own}");
    // A person knows why.
    let accepted = scene.operator.json(&["audit", "accept", "--reason", "restored a backup"]);
    assert_eq!(accepted[0]["server"], "web-1", "{accepted}");
    let status = scene.operator.run(&["status"]);
    assert!(
        !status.stderr.contains("REWRITTEN") && !status.stdout.contains("REWRITTEN"),
        "{}",
        status.stdout
    );
    assert!(last > 4);
}

/// Takes requests, and tells the body of each that it does not have: what was delivered just before a crash comes twice,
/// under the same id.
fn receiver(listener: TcpListener, bodies: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        let mut ids = BTreeSet::new();
        for mut stream in listener.incoming().flatten() {
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            let length = loop {
                let read = stream.read(&mut piece).unwrap_or(0);
                request.extend_from_slice(&piece[..read]);
                let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
                if let Some(end) = text.find("\r\n\r\n") {
                    let length =
                        text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                    break end + 4 + length.and_then(|length| length.parse().ok()).unwrap_or(0);
                }
                if read == 0 {
                    break 0;
                }
            };
            while request.len() < length {
                let read = stream.read(&mut piece).unwrap_or(0);
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&piece[..read]);
            }
            drop(
                stream
                    .write_all(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
            );
            let text = String::from_utf8_lossy(&request).into_owned();
            let id = text.lines().find_map(|line| line.strip_prefix("webhook-id: "));
            if !ids.insert(id.unwrap_or_default().to_owned()) {
                continue;
            }
            drop(bodies.send(text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()));
        }
    });
}

#[test]
fn webhooks_wait_over_a_killed_coordinator() {
    let mut scene = Scene::start(&["web-1"]);
    // Nobody listens there yet.
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let (file, secret) =
        (scene.directory.path().join("webhooks.toml"), scene.directory.path().join("secret"));
    fs::write(&secret, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text =
        format!("[[webhook]]\nname = \"chat\"\nurl = \"http://{address}/\"\nsecret_file = \"secret\"\n");
    fs::write(&file, text).unwrap();
    let launch = |scene: &mut Scene| {
        scene.coordinator.kill();
        scene.coordinator.launch_with(|command| {
            command.arg("--webhooks").arg(&file);
        });
        until("the coordinator listens", LONG, || {
            let status = scene.operator.run(&["status"]);
            if status.code == 0 { Ok(()) } else { Err(status.stderr) }
        });
        scene.operator.wait_online("web-1");
    };
    launch(&mut scene);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.0.0").code, 0, "a webhook that is away keeps nothing waiting");
    let listed = scene.operator.json(&["webhook", "list"]);
    assert_eq!(listed[0]["waiting"], 2, "{listed}");

    launch(&mut scene);
    let (to, bodies) = mpsc::channel();
    receiver(TcpListener::bind(address).unwrap(), to);
    scene.operator.ok(&["webhook", "retry", "chat"]);
    let kinds: Vec<String> = (0..2)
        .map(|_| {
            let body = bodies.recv_timeout(LONG).unwrap();
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            body["type"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds, ["rollout.started", "rollout.ended"]);
    until("nothing waits any more", LONG, || {
        let listed = scene.operator.json(&["webhook", "list"]);
        if listed[0]["waiting"] == 0 && listed[0]["delivered"] == 2 { Ok(()) } else { Err(listed) }
    });
}

/// Everything that comes, in its order.
struct Told(mpsc::Receiver<String>);

impl Told {
    fn next(&self) -> (String, serde_json::Value) {
        let body: serde_json::Value = serde_json::from_str(&self.0.recv_timeout(LONG).unwrap()).unwrap();
        (body["type"].as_str().unwrap().to_owned(), body["data"].clone())
    }

    /// The next one that is no rollout's.
    fn next_of_candidates(&self) -> (String, serde_json::Value) {
        loop {
            let next = self.next();
            if !next.0.starts_with("rollout.") {
                return next;
            }
        }
    }
}

fn serve_with(scene: &mut Scene, file: &std::path::Path, servers: &[&str]) {
    scene.coordinator.kill();
    scene.coordinator.launch_with(|command| {
        command.arg("--webhooks").arg(file);
    });
    until("the coordinator listens", LONG, || {
        let status = scene.operator.run(&["status"]);
        if status.code == 0 { Ok(()) } else { Err(status.stderr) }
    });
    for server in servers {
        scene.operator.wait_online(server);
    }
}

/// Of this kind and about this version, who did it and why.
fn logged(scene: &Scene, what: &str) -> Vec<serde_json::Value> {
    let all = scene.operator.json(&["audit", "list"]);
    all.as_array().unwrap().iter().filter(|entry| entry["what"] == what).cloned().collect()
}

#[test]
fn who_let_what_through_is_proven_and_told_once() {
    const SERVERS: [&str; 2] = ["stage-1", "web-1"];
    let mut gated = Gated::start(&[("stage-1", "staging"), ("web-1", "production")]);
    for agent in &gated.scene.agents {
        let output = agent.command(&["status", "--output", "json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let (name, fingerprint) =
            (status["server"].as_str().unwrap(), status["fingerprint"].as_str().unwrap());
        gated.scene.operator.ok(&["server", "accept", name, "--fingerprint", fingerprint]);
    }
    let settings = gated.scene.directory.path().join("environments.toml");
    let text = "[environment.staging]\ndeploy = \"on-publish\"\n[environment.production]\ndeploy = \"after:staging\"\n";
    fs::write(&settings, text).unwrap();
    gated.scene.operator.ok(&["env", "apply", settings.to_str().unwrap()]);
    let (to, bodies) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    receiver(listener, to);
    let told = Told(bodies);
    let file = gated.scene.directory.path().join("webhooks.toml");
    let secret = gated.scene.directory.path().join("secret");
    fs::write(&secret, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text =
        format!("[[webhook]]\nname = \"chat\"\nurl = \"http://{address}/\"\nsecret_file = \"secret\"\n");
    fs::write(&file, text).unwrap();
    serve_with(&mut gated.scene, &file, &SERVERS);

    gated.scene.publish("1.0.0", ACTIVATE, &[("app", "one")]);
    let (kind, data) = told.next_of_candidates();
    assert_eq!((kind.as_str(), &data["environment"]), ("candidate.started", &"staging".into()), "{data}");
    assert!(data["by"].is_null(), "the coordinator by itself: {data}");
    let (kind, data) = told.next_of_candidates();
    assert_eq!((kind.as_str(), &data["environment"]), ("gate.waiting", &"production".into()), "{data}");
    assert!(data["because"].as_str().unwrap().contains("product-owners"), "{data}");
    // Whatever happens to the coordinator meanwhile, it is said once.
    for _ in 0..2 {
        serve_with(&mut gated.scene, &file, &SERVERS);
    }
    until("the receipt of staging", LONG, || {
        let shown = gated.scene.operator.json(&["audit", "receipts", "app@1.0.0", "--env", "staging"]);
        if shown.as_array().unwrap().len() == 1 { Ok(()) } else { Err(shown) }
    });

    // Whoever approves sees that staging's own server says so.
    let export = gated.scene.directory.path().join("approval.json");
    let shown =
        gated.approve("1.0.0", "production", &["--output", "json", "--export", export.to_str().unwrap()]);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let before = &shown["evidence"]["rollouts"][0];
    assert_eq!((&before["proof"]["mark"], &before["receipts"]), (&"proven".into(), &1.into()), "{before}");

    let approved = gated.approve("1.0.0", "production", &[]);
    assert_eq!(approved.code, 0, "{}", approved.stderr);
    assert!(approved.stdout.contains("by receipts of 1"), "{}", approved.stdout);
    let (kind, data) = told.next_of_candidates();
    assert_eq!((kind.as_str(), &data["environment"]), ("candidate.started", &"production".into()), "{data}");
    let approvals = until("the rollout has ended", LONG, || {
        let shown = gated.scene.operator.json(&["audit", "who-approved", "app@1.0.0", "--env", "production"]);
        if shown[0]["rollouts"][0]["state"] == "succeeded" { Ok(shown) } else { Err(shown) }
    });
    let one = &approvals[0];
    assert_eq!((&one["proof"]["mark"], &one["proof"]["by"][0]), (&"proven".into(), &"pat".into()), "{one}");
    let signer = &one["signers"][0];
    assert_eq!((&signer["owner"], &signer["roles"][0]), (&"pat".into(), &"product-owners".into()), "{one}");
    let text = gated.scene.operator.ok(&["audit", "who-approved", "app@1.0.0"]);
    let key = signer["key"].as_str().unwrap();
    assert!(text.contains(&format!("proven: pat (product-owners, key {})", &key[..12])), "{text}");

    // The log: who handed in what, signed by which key; and what nobody asked for.
    let put = logged(&gated.scene, "statement put");
    assert!(put[0]["about"]["key"].as_str().unwrap().starts_with("pat "), "{put:?}");
    assert_eq!(
        (&put[0]["about"]["environment"], &put[0]["about"]["version"]),
        (&"production".into(), &"1.0.0".into())
    );
    assert_eq!(put[0]["about"]["predicate"], "consign:approval/v1");
    let accepted = logged(&gated.scene, "server accept");
    assert_eq!(accepted.len(), 2);
    assert!(
        accepted
            .iter()
            .all(|entry| entry["about"]["key"].is_string() && entry["about"]["server"].is_string())
    );
    let started = logged(&gated.scene, "rollout start");
    assert_eq!(started.len(), 2, "{started:?}");
    assert!(started.iter().all(|entry| entry["who"]["identity"] == "coordinator"), "{started:?}");
    let waits = logged(&gated.scene, "candidate waits");
    assert_eq!(
        waits.iter().filter(|entry| entry["reason"].as_str().unwrap().contains("gate")).count(),
        1,
        "{waits:?}"
    );

    // A version that fails goes back by itself, and re-arms; the next one waits, and is vetoed.
    let fails = format!("{ACTIVATE}\n[[step]]\nname = \"fails\"\nshell = \"exit 1\"\n");
    gated.scene.publish("1.1.0", &fails, &[("app", "two")]);
    until("it went back", LONG, || {
        let receipts = logged(&gated.scene, "receipt");
        let back = receipts
            .iter()
            .any(|it| it["reason"].as_str().is_some_and(|it| it.starts_with("returned by itself")));
        if back { Ok(()) } else { Err(receipts) }
    });
    let armed = logged(&gated.scene, "gate re-arm");
    assert_eq!((armed.len(), &armed[0]["who"]["identity"]), (1, &"server stage-1".into()), "{armed:?}");

    // Somebody with the database says that production runs something else, and forges the server's word.
    let id = approvals[0]["rollouts"][0]["rollout"].as_str().unwrap().to_owned();
    let show = |scene: &Scene| scene.operator.json(&["rollout", "show", &id])["receipts"][0].clone();
    let whole = until("its receipt", LONG, || {
        let shown = show(&gated.scene);
        if shown.is_null() { Err(()) } else { Ok(shown) }
    });
    assert_eq!(
        (&whole["result"], &whole["proof"]["mark"]),
        (&"succeeded".into(), &"proven".into()),
        "{whole}"
    );
    tamper(
        &mut gated.scene,
        "import base64
for rowid, envelope in db.execute('SELECT rowid, envelope FROM receipts').fetchall():
    envelope = json.loads(envelope)
    payload = base64.b64decode(envelope['payload']).replace(b'\"prepare\"', b'\"prepared\"').replace(b'succeeded', b'no-op', 1)
    envelope['payload'] = base64.b64encode(payload).decode()
    db.execute('UPDATE receipts SET envelope = ? WHERE rowid = ?', (json.dumps(envelope).encode(), rowid))",
    );
    let forged = show(&gated.scene);
    assert_eq!((&forged["proof"]["mark"], &forged["result"]), (&"false".into(), &"".into()), "{forged}");
    let receipts = gated.scene.operator.run(&["audit", "receipts", "app@1.0.0"]);
    assert_eq!(receipts.code, 1, "{}", receipts.stdout);
    assert!(receipts.stdout.contains("false: this is not the server's word"), "{}", receipts.stdout);
    let shown =
        gated.approve("1.0.0", "production", &["--output", "json", "--export", export.to_str().unwrap()]);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    for line in shown["evidence"]["rollouts"].as_array().unwrap() {
        assert_eq!((&line["proof"]["mark"], &line["receipts"]), (&"told".into(), &0.into()), "{line}");
    }
}

#[test]
fn a_veto_and_what_is_newer_are_told() {
    let mut gated = Gated::start(&[("stage-1", "staging"), ("web-1", "production")]);
    let (to, bodies) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    receiver(listener, to);
    let told = Told(bodies);
    let file = gated.scene.directory.path().join("webhooks.toml");
    let secret = gated.scene.directory.path().join("secret");
    fs::write(&secret, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[[webhook]]\nname = \"chat\"\nurl = \"http://{address}/\"\nsecret_file = \"secret\"\nenvironments = [\"production\", \"staging\"]\n"
    );
    fs::write(&file, text).unwrap();
    serve_with(&mut gated.scene, &file, &["stage-1", "web-1"]);
    let settings = gated.scene.directory.path().join("environments.toml");
    let text = "[environment.staging]\ndeploy = \"on-publish\"\nveto = \"1h\"\n[environment.production]\ndeploy = \"on-publish\"\ncandidates = \"newest\"\n";
    fs::write(&settings, text).unwrap();
    gated.scene.operator.ok(&["env", "apply", settings.to_str().unwrap()]);
    gated.scene.publish("1.0.0", ACTIVATE, &[("app", "one")]);
    let mut first = vec![told.next_of_candidates(), told.next_of_candidates()];
    first.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!((first[0].0.as_str(), first[1].0.as_str()), ("gate.waiting", "veto.waiting"), "{first:?}");
    assert!(first[1].1["until_ms"].as_u64().unwrap() > 0, "{first:?}");
    gated.scene.operator.ok(&["candidate", "veto", "app@1.0.0", "--env", "staging", "--reason", "not today"]);
    let (kind, data) = told.next_of_candidates();
    assert_eq!((kind.as_str(), &data["because"]), ("candidate.vetoed", &"not today".into()), "{data}");
    assert!(data["by"].is_string(), "{data}");
    gated.scene.operator.ok(&["env", "hold", "app", "--env", "staging", "--reason", "counting stock"]);
    assert_eq!(told.next_of_candidates().0, "hold.placed");
    gated.scene.publish("1.1.0", ACTIVATE, &[("app", "two")]);
    let superseded = loop {
        let next = told.next_of_candidates();
        if next.0 == "candidate.superseded" {
            break next.1;
        }
    };
    assert_eq!((&superseded["version"], &superseded["environment"]), (&"1.0.0".into(), &"production".into()));
    let veto = &logged(&gated.scene, "candidate veto")[0];
    assert_eq!(
        (&veto["about"]["version"], &veto["reason"]),
        (&"1.0.0".into(), &"not today".into()),
        "{veto}"
    );
    let hold = &logged(&gated.scene, "env hold")[0];
    assert_eq!((&hold["about"]["app"], &hold["reason"]), (&"app".into(), &"counting stock".into()), "{hold}");
    assert_eq!(logged(&gated.scene, "candidate supersede").len(), 1);
}
