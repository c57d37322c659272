//! Ports and directories that belong to somebody else, or to a newer version.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use consign_tests::scene::{Ran, binary};

use super::support::{assert_says, output_of, words};
use crate::scene::{ACTIVATE, Scene};

fn serve(scene: &Scene, state: &Path, listen: &str) -> Ran {
    let bundle = scene.operator.home().join("coordinator.bundle");
    let mut command = Command::new(binary("consign"));
    command
        .args(["serve", "--listen", listen, "--enrolment-listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .arg("--bundle")
        .arg(bundle)
        .stdin(Stdio::null());
    output_of(&mut command)
}

/// A schema step that no version of ours has written yet.
fn from_the_future(database: &Path) {
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute(\"insert into _sqlx_migrations select 9999, 'later', installed_on, 1, checksum, 0 \
        from _sqlx_migrations order by version desc limit 1\")\n\
        db.commit()\n";
    let done = output_of(Command::new("python3").args(["-c", script]).arg(database));
    assert_eq!(done.code, 0, "{}", words(&done));
}

#[test]
fn a_port_or_directory_in_use_is_named() {
    let scene = Scene::start(&["web-1"]);
    let other = scene.directory.path().join("other");
    assert_says(
        &serve(&scene, &other, &scene.coordinator.address),
        1,
        &[&scene.coordinator.address, "in use"],
    );
    let own = serve(&scene, scene.coordinator.state(), "127.0.0.1:0");
    assert_says(&own, 1, &[&scene.coordinator.state().display().to_string()]);

    let agent = &scene.agents[0];
    let pid = agent.pid().to_string();
    let state = agent.state().display().to_string();
    assert_says(
        &output_of(&mut agent.command(&["run"])),
        1,
        &["in use by another consign-agent", &pid, &state],
    );

    // Neither was disturbed.
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
}

#[test]
fn what_a_newer_version_wrote_is_left_alone() {
    let mut scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);

    scene.agents[0].kill();
    let agent = &scene.agents[0];
    let version = agent.state().join("version");
    let own = fs::read(&version).unwrap();
    fs::write(&version, "99\n").unwrap();
    let parts = ["newer consign-agent", "99", "install that version again"];
    assert_says(&output_of(&mut agent.command(&["run"])), 1, &parts);
    assert_eq!(fs::read(&version).unwrap(), b"99\n");
    fs::write(&version, own).unwrap();
    from_the_future(&agent.state().join("journal.db"));
    let parts = ["journal.db", "newer version of consign-agent", "install that version again"];
    assert_says(&output_of(&mut agent.command(&["run"])), 1, &parts);

    scene.coordinator.kill();
    let state = scene.coordinator.state().to_owned();
    from_the_future(&state.join("consign.db"));
    let parts = ["consign.db", "newer version of consign", "9999"];
    assert_says(&serve(&scene, &state, "127.0.0.1:0"), 1, &parts);
}
