//! Rollouts as an operator sees them: exit codes, waves, refusals by name.

use crate::scene::{ACTIVATE, Scene};

#[test]
fn deploy_again_fail_return_and_roll_back() {
    let scene = Scene::start(&["web-1", "web-2", "web-3"]);
    scene.publish(
        "1.0.0",
        &format!("[[step]]\nname = \"say\"\nshell = \"echo hello from $CONSIGN_SERVER\"\n{ACTIVATE}"),
        &[],
    );
    let first = scene.roll_out("1.0.0");
    assert_eq!(first.code, 0, "{}{}", first.stdout, first.stderr);
    for server in ["web-1", "web-2", "web-3"] {
        assert_eq!(first.stdout.matches(&format!("hello from {server}")).count(), 1, "{}", first.stdout);
    }

    // What runs already is a no-op: no step runs.
    let again = scene.roll_out("1.0.0");
    assert_eq!(again.code, 0);
    assert!(!again.stdout.contains("hello from"), "{}", again.stdout);

    // A failure before the switch touches nothing and is not green.
    scene.publish(
        "1.1.0",
        &format!("[[step]]\nname = \"no\"\nshell = \"echo broken >&2; exit 3\"\n{ACTIVATE}"),
        &[],
    );
    let failed = scene.roll_out("1.1.0");
    assert_eq!(failed.code, 3, "stopped over its budget\n{}", failed.stdout);
    assert!(failed.stdout.contains("broken") && failed.stdout.contains("exit code 3"), "{}", failed.stdout);
    for agent in &scene.agents {
        let current = std::fs::read_link(agent.apps().join("app/current")).unwrap();
        assert!(current.to_string_lossy().contains("1.0.0"), "{current:?}");
        assert_eq!(
            std::fs::read_dir(agent.apps().join("app/releases")).unwrap().count(),
            1,
            "the staged release is gone"
        );
    }

    // A failure after it brings every server back.
    scene.publish("1.2.0", &format!("{ACTIVATE}[[step]]\nname = \"check\"\nrun = [\"/bin/false\"]\n"), &[]);
    assert_eq!(scene.roll_out("1.2.0").code, 4);

    scene.publish("1.3.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.3.0").code, 0);
    let rollback = ["rollout", "rollback", "app", "--env", "staging", "--reason", "test", "--follow"];
    assert_eq!(scene.operator.run(&rollback).code, 0);
    for agent in &scene.agents {
        let current = std::fs::read_link(agent.apps().join("app/current")).unwrap();
        assert!(current.to_string_lossy().contains("1.0.0"), "{current:?}");
    }
    // A second rollback has nowhere to go.
    let second = scene.operator.run(&rollback);
    assert_ne!(second.code, 0, "{}", second.stdout);
}

#[test]
fn what_is_not_built_or_not_allowed_is_refused_by_name() {
    let scene = Scene::start(&["web-1", "web-2"]);
    let user = format!("[[step]]\nname = \"as_other\"\nshell = \"id\"\nuser = \"daemon\"\n{ACTIVATE}");
    let unit =
        format!("{ACTIVATE}[[step]]\nname = \"restart\"\nsystemd = {{ restart = \"other.service\" }}\n");
    let parameter = format!("[params.token]\ntype = \"string\"\nsecret = true\n{ACTIVATE}");
    for (version, plan, word) in
        [("1.0.2", &user, "daemon"), ("1.0.3", &unit, "other.service"), ("1.0.4", &parameter, "token")]
    {
        scene.publish(version, plan, &[]);
        let ran = scene.roll_out(version);
        assert_ne!(ran.code, 0, "{version}: {}", ran.stdout);
        assert!(
            format!("{}{}", ran.stdout, ran.stderr).contains(word),
            "{version}: {}{}",
            ran.stdout,
            ran.stderr
        );
        for agent in &scene.agents {
            assert!(!agent.apps().join("app/current").exists(), "{version} ran");
        }
    }
}

#[test]
fn one_server_migrates_for_all_and_all_are_confirmed() {
    let scene = Scene::start(&["web-1", "web-2"]);
    let effects = scene.directory.path().join("effects");
    let plan = format!(
        "confirm = \"5m\"\n[[step]]\nname = \"migrate\"\nshell = \"echo migrated >> {}\"\nonce = true\n{ACTIVATE}",
        effects.display()
    );
    scene.publish("1.0.0", &plan, &[]);
    let ran = scene.roll_out("1.0.0");
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(std::fs::read_to_string(&effects).unwrap(), "migrated\n");
    let newest = scene.operator.json(&["rollout", "list"]);
    let states: Vec<_> = newest[0]["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["steps"][0]["state"].clone())
        .collect();
    assert_eq!(states, ["succeeded", "skipped"], "{newest}");
}
