//! Which agents can read what.

use std::process::Command;

use super::people::{Person, public};
use crate::{bad_input::support::assert_says, scene::Scene};

/// As the coordinator would know an agent of an older version.
fn forget_types(scene: &Scene, server: &str) {
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); \
                  db.execute(\"UPDATE servers SET document_types = '[]' WHERE name = ?\", (sys.argv[2],)); db.commit()";
    let database = scene.coordinator.state().join("consign.db");
    assert!(database.exists(), "{}", database.display());
    let done = Command::new("python3").args(["-c", script]).arg(&database).arg(server).status().unwrap();
    assert!(done.success());
}

#[test]
fn an_agent_that_cannot_read_it_is_named_before_anybody_signs() {
    let mut scene = Scene::start(&["web-1", "web-2"]);
    let shown = scene.operator.json(&["server", "show", "web-1"]);
    let types: Vec<&str> =
        shown["document_types"].as_array().unwrap().iter().filter_map(|it| it.as_str()).collect();
    for read in [
        "application/vnd.consign.trust-root.v1+json",
        "application/vnd.consign.trust-root.v2+json",
        "consign:published/v1",
        "consign:approval/v1",
        "consign:config/v1",
        "consign:decision/v1",
        "consign:enrolled/v1",
    ] {
        assert!(types.contains(&read), "{read}: {types:?}");
    }
    // Stopped for good: it would say what it reads when it comes again.
    scene.agents[0].kill();
    scene.coordinator.kill();
    forget_types(&scene, "web-1");
    scene.coordinator.launch();
    scene.operator.wait_online("web-2");

    let person = Person::new(&scene, "ada");
    let ssh = person.ssh_keygen("id", "");
    let add = ["trust", "add-key", &format!("approvers=ada={}", public(&ssh))];
    let refused = scene.operator.run(&add);
    assert_says(
        &refused,
        6,
        &["cannot read application/vnd.consign.trust-root.v2+json yet: web-1", "--leave-behind"],
    );
    assert!(!refused.stderr.contains("web-2"), "{}", refused.stderr);
    // A gate needs no second version of the trust root, and approvals all the same.
    let gate = ["trust", "set-gate", "staging", "--require", "approval by approvers"];
    assert_says(&scene.operator.run(&gate), 6, &["cannot read consign:approval/v1 yet: web-1"]);
    let foreign = ["trust", "set-gate", "staging", "--require", "test-result by approvers"];
    scene.operator.ok(&foreign);
    let all = scene.operator.json(&["trust", "show"]);
    assert_eq!(all["version"], 2);
    scene.operator.ok(&[&add[..], &["--leave-behind"]].concat());
    assert_eq!(scene.operator.json(&["trust", "show"])["version"], 3);
}
