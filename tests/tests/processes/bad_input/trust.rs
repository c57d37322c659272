//! What the trust root, the server's own word or the order of time do not allow.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use consign_common::{
    digest::Sha256,
    time::{Clock as _, SystemClock},
    trust::{Envelope, OrderingNumber, Predicate, Published, STATEMENT_TYPE, SigningKey, Statement, Subject},
};

use super::support::{assert_runs, assert_says, output_of, shifted};
use crate::scene::{ACTIVATE, Scene};

#[test]
fn a_publisher_that_the_trust_root_does_not_name_for_the_app_publishes_nothing() {
    let scene = Scene::without_agents(&["app"], &["staging"]);
    let key = scene.directory.path().join("blog.key");
    let key = key.to_str().unwrap();
    scene.operator.ok(&["key", "generate", key, "--owner", "blog-ci"]);
    let app = scene.source("app", "1.0.0", ACTIVATE, &[]);
    let publish = |source: &str| {
        scene.operator.run(&["artifact", "publish", source, "--version", "1.0.0", "--key", key])
    };
    let app = app.to_str().unwrap();
    assert_says(&publish(app), 6, &["may not publish app", "--add-publisher app="]);

    // Named, but for another app.
    let public = key.replace(".key", ".pub");
    scene.operator.ok(&["trust", "update", "--add-app", "blog", "--publisher", &public]);
    assert_says(&publish(app), 6, &["may not publish app"]);
    let listed = scene.operator.json(&["artifact", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(0), "{listed}");
    let blog = scene.source("blog", "1.0.0", ACTIVATE, &[]);
    assert_says(&publish(blog.to_str().unwrap()), 0, &[]);
    // And an app that it does not name at all.
    let other = scene.source("other", "1.0.0", ACTIVATE, &[]);
    assert_says(&publish(other.to_str().unwrap()), 6, &["other", "--add-app other"]);
}

#[test]
fn a_coordinator_whose_documents_were_exchanged_deploys_nothing() {
    let scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
    scene.publish("1.1.0", ACTIVATE, &[("file", "signed")]);
    // Whoever has the coordinator's disk signs with a key of their own.
    let shown = scene.operator.json(&["artifact", "show", "app@1.1.0"]);
    let digest: Sha256 = shown["digest"].as_str().unwrap().parse().unwrap();
    let statement = Statement {
        subject: Subject { name: "app@1.1.0".into(), sha256: digest },
        predicate: Predicate::Published(Published {
            app: "app".parse().unwrap(),
            version: "1.1.0".parse().unwrap(),
            platform: None,
            number: OrderingNumber { epoch: 0, ms: SystemClock.now() },
        }),
    };
    let stranger = SigningKey::generate().unwrap();
    let forged = Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&stranger]).to_vec();
    let database = scene.coordinator.state().join("consign.db");
    let honest = exchange(&database, digest, &forged);
    assert_says(&scene.roll_out("1.1.0"), 6, &["not signed by enough of the keys that may"]);
    assert_runs(&scene.agents[0], Some("1.0.0"));
    // One flipped byte in the envelope.
    let mut flipped = honest.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    // A coordinator that looks at nothing: it is exchanged after the rollout was let in.
    for (bad, why) in [(&forged, "not signed by enough of the keys that may"), (&flipped, "")] {
        exchange(&database, digest, &honest);
        let start = ["rollout", "start", "app@1.1.0", "--env", "staging", "--at", "+2s"];
        let begun = scene.operator.json(&start);
        exchange(&database, digest, bad);
        let ran = scene.operator.run(&["rollout", "follow", begun["id"].as_str().unwrap()]);
        assert_says(&ran, 6, &["web-1", why]);
        assert_runs(&scene.agents[0], Some("1.0.0"));
    }

    exchange(&database, digest, &honest);
    assert_says(&scene.roll_out("1.1.0"), 0, &[]);
}

/// Puts another envelope in the place of the one about this artifact; the one that was there.
fn exchange(database: &Path, artifact: Sha256, envelope: &[u8]) -> Vec<u8> {
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        (old,), = db.execute('select envelope from statements where artifact = ?', (sys.argv[2],))\n\
        new = sys.stdin.buffer.read()\n\
        db.execute('update statements set envelope = ? where artifact = ?', (new, sys.argv[2]))\n\
        db.commit()\n\
        sys.stdout.buffer.write(old)";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .arg(database)
        .arg(artifact.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(envelope).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn what_the_servers_own_word_does_not_list_is_refused_by_name() {
    let mut scene = Scene::without_agents(&["app", "blog"], &["staging"]);
    let word = ["--allow-app", "app", "--allow-user", "root", "--allow-unit", "app.service"];
    scene.enrol("web-1", "staging", &word);
    let user = format!("[[step]]\nname = \"as_other\"\nshell = \"id\"\nuser = \"daemon\"\n{ACTIVATE}");
    let unit =
        format!("{ACTIVATE}[[step]]\nname = \"restart\"\nsystemd = {{ restart = \"sshd.service\" }}\n");
    scene.publish("1.0.0", &user, &[]);
    scene.publish("1.0.1", &unit, &[]);
    for (version, parts) in [
        ("1.0.0", ["as_other", "user daemon", "agent.toml"]),
        ("1.0.1", ["restart", "unit sshd.service", "agent.toml"]),
    ] {
        assert_says(&scene.roll_out(version), 6, &parts);
        assert_runs(&scene.agents[0], None);
    }
    let blog = scene.source("blog", "1.0.0", ACTIVATE, &[]);
    scene.operator.ok(&["artifact", "publish", blog.to_str().unwrap(), "--version", "1.0.0"]);
    let ran = scene.operator.run(&["rollout", "start", "blog@1.0.0", "--env", "staging", "--follow"]);
    assert_says(&ran, 6, &["blog is not allowed on this server", "agent.toml"]);
    assert!(!scene.agents[0].apps().join("blog").exists());
    // What is allowed goes on.
    scene.publish("1.0.2", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.2"), 0, &[]);
}

#[test]
fn another_environment_is_refused_by_name() {
    let mut scene = Scene::without_agents(&["app"], &["staging", "production"]);
    scene.enrol("web-1", "staging", &["--allow-app", "app", "--allow-user", "root"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    let to = |environment: &str, more: &[&str]| {
        let mut arguments = vec!["rollout", "start", "app@1.0.0", "--env", environment, "--follow"];
        arguments.extend(more);
        scene.operator.run(&arguments)
    };
    assert_says(&to("elsewhere", &[]), 6, &["elsewhere"]);
    assert_says(&to("production", &[]), 1, &["no server of production"]);
    assert_says(&to("production", &["--only", "web-1"]), 1, &["web-1"]);
    assert_runs(&scene.agents[0], None);

    // The host's own file is what counts: the coordinator cannot move a server.
    let file = scene.agents[0].state().with_file_name("agent.toml");
    let moved = fs::read_to_string(&file).unwrap().replace("\"staging\"", "\"production\"");
    fs::write(&file, moved).unwrap();
    scene.agents[0].kill();
    scene.agents[0].launch();
    let ran = to("staging", &[]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert_runs(&scene.agents[0], None);
    assert!(scene.agents[0].log().contains("production"), "{}", scene.agents[0].log());
}

#[test]
fn an_older_publication_needs_to_be_published_again() {
    let scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    scene.publish("1.1.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.1.0"), 0, &[]);
    assert_says(&scene.roll_out("1.0.0"), 6, &["older", "consign artifact publish"]);
    assert_runs(&scene.agents[0], Some("1.1.0"));
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
}

#[test]
fn a_publication_from_the_future_is_refused_and_stands_in_nobodys_way() {
    let scene = Scene::start(&["web-1"]);
    let source = scene.source("app", "1.0.0", ACTIVATE, &[]);
    let source = source.to_str().unwrap();
    let mut ahead = scene.operator.command(&["artifact", "publish", source, "--version", "1.0.0"]);
    shifted(&mut ahead, "+2h");
    let published = output_of(&mut ahead);
    if published.code == 0 {
        assert_says(&scene.roll_out("1.0.0"), 6, &["more than ten minutes ahead"]);
        assert_runs(&scene.agents[0], None);
    } else {
        assert_says(&published, 6, &["ahead"]);
    }
    // The same bytes, signed by a good clock.
    scene.operator.ok(&["artifact", "publish", source, "--version", "1.0.0"]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
    scene.publish("1.0.1", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.1"), 0, &[]);
}
