//! The audit log as people meet it: who did what, what a server says it ran, and what somebody with the database cannot
//! hide; and webhooks over a coordinator that is killed.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::mpsc,
    time::Duration,
};

use consign_tests::wait::until;

use crate::scene::{ACTIVATE, Scene};

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

/// Takes one request, and tells its body.
fn receiver(listener: TcpListener, bodies: mpsc::Sender<String>) {
    std::thread::spawn(move || {
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
