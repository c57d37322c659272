//! Plans, asked of real agents: what they foresee is what they do, or they say so.

use crate::scene::{ACTIVATE, Scene};

#[test]
fn servers_do_what_they_said_or_refuse_it_as_drift() {
    let scene = Scene::start(&["web-1", "web-2"]);
    let migrate = "[[step]]\nname = \"migrate\"\nshell = \"true\"\nwhen = \"changed('migrations/**')\"\n";
    let steps = format!("{migrate}{ACTIVATE}");
    let publish = |version: &str, migration: &str| {
        scene.publish(version, &steps, &[("migrations/1", migration)]);
    };
    publish("1.0.0", "one");
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    publish("1.1.0", "two");
    publish("1.2.0", "one");

    let plan = |version: &str| {
        let plan = scene.operator.json(&["rollout", "plan", &format!("app@{version}"), "--env", "staging"]);
        let digest = plan["digest"].as_str().unwrap().to_owned();
        (plan, digest)
    };
    let (first, of_first) = plan("1.1.0");
    let (second, of_second) = plan("1.2.0");
    for (plan, decision) in [(&first, "run"), (&second, "skip")] {
        assert_eq!(plan["servers"].as_array().unwrap().len(), 2);
        for server in plan["servers"].as_array().unwrap() {
            assert_eq!(server["state"], "planned", "{server}");
            assert_eq!(server["steps"][0]["decision"], decision, "{server}");
            assert_eq!(server["steps"][1]["decision"], "run", "{server}");
        }
    }
    assert!(second["servers"][0]["steps"][0]["because"].as_str().unwrap().contains("migrations"), "{second}");
    let text = scene.operator.ok(&["rollout", "plan", "app@1.2.0", "--env", "staging"]);
    assert!(text.contains("2 servers (web-1, web-2):") && text.contains(&of_second), "{text}");
    for agent in &scene.agents {
        let releases = std::fs::read_dir(agent.apps().join("app/releases")).unwrap().count();
        assert_eq!(releases, 1, "nothing is kept of what was asked");
    }

    let start = |version: &str, digest: &str| {
        let artifact = format!("app@{version}");
        let start = ["rollout", "start", &artifact, "--env", "staging", "--plan", digest, "--follow"];
        scene.operator.run(&start)
    };
    let other = start("1.2.0", &of_first);
    assert_eq!(other.code, 1, "{}", other.stderr);
    assert!(other.stderr.contains("plan-other"), "{}", other.stderr);
    let done = start("1.1.0", &of_first);
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    // Since then the migration is another one: what was foreseen is not the case any more.
    let drift = start("1.2.0", &of_second);
    assert_eq!(drift.code, 3, "{}{}", drift.stdout, drift.stderr);
    assert!(drift.stdout.contains("plan-drift"), "{}", drift.stdout);
    // Foreseen anew, it goes through.
    let (_, again) = plan("1.2.0");
    assert_ne!(again, of_second);
    assert_eq!(start("1.2.0", &again).code, 0);
}
