//! The main job: first deployment, upgrade, skipped migration, a version that fails and returns, a rollback.

use consign_tests::scene::Production;

#[test]
fn three_servers_from_first_deployment_to_rollback() {
    let scene = Production::boot(&["web-1", "web-2", "web-3"]);
    scene.publish("1.0.0", "0.13.3", &["001-notes.sql"], "");
    scene.publish("1.1.0", "0.13.4", &["001-notes.sql"], "");
    scene.publish_with("1.2.0", "0.13.4", &["001-notes.sql", "002-index.sql"], "", &[("BROKEN", "yes")]);

    // First deployment: everything runs, and the output of the step is on the operator's screen.
    let first = scene.roll_out("1.0.0");
    assert_eq!(first.code, 0);
    for host in &scene.fleet.hosts {
        assert!(first.stdout.contains("applying migrations/001-notes.sql"), "{}", first.stdout);
        assert_eq!(scene.serves(host), "0.13.3");
        assert_eq!(host.exec("cat /srv/notes/shared/data/applied"), "migrations/001-notes.sql 1.0.0\n");
        assert_eq!(host.exec("stat -c '%U %a' /srv/notes/current/notes.py"), "root 644\n");
    }

    // Upgrade: the same migrations, so the step is skipped, with its expression and what it saw.
    let upgrade = scene.roll_out("1.1.0");
    assert_eq!(upgrade.code, 0);
    for host in &scene.fleet.hosts {
        assert_eq!(scene.serves(host), "0.13.4");
        assert_eq!(host.exec("cat /srv/notes/shared/data/applied"), "migrations/001-notes.sql 1.0.0\n");
    }
    for deployment in scene.newest()["deployments"].as_array().unwrap() {
        let step = &deployment["steps"][0];
        assert_eq!(step["name"], "migrate");
        assert_eq!(step["state"], "skipped");
        let because = step["because"].as_str().unwrap();
        assert!(because.contains("changed('migrations/**')") && because.contains("false"), "{because}");
    }

    // What runs already is not touched.
    let pid = scene.fleet.hosts[0].exec("systemctl show -P MainPID notes");
    assert_eq!(scene.roll_out("1.1.0").code, 0);
    assert_eq!(scene.fleet.hosts[0].exec("systemctl show -P MainPID notes"), pid);

    // A version that is not healthy: every changed server is back on 1.1.0 by itself.
    let bad = scene.roll_out("1.2.0");
    assert_eq!(bad.code, 4, "every changed server is back on its previous good artifact");
    for host in &scene.fleet.hosts {
        assert_eq!(scene.serves(host), "0.13.4");
        assert!(host.exec("readlink /srv/notes/current").contains("1.1.0"));
    }

    // The operator's rollback goes to the artifact before; what came last, 1.2.0, left nothing to go back from.
    let back = scene.operator.run(&[
        "rollout",
        "rollback",
        "notes@1.1.0",
        "--env",
        "production",
        "--reason",
        "test",
        "--follow",
    ]);
    assert_eq!(back.code, 0, "{}{}", back.stdout, back.stderr);
    for host in &scene.fleet.hosts {
        assert_eq!(scene.serves(host), "0.13.3");
    }
}

#[test]
fn a_wave_stops_before_the_others_are_touched() {
    let scene = Production::boot(&["web-1", "web-2", "web-3"]);
    scene.publish("1.0.0", "0.13.3", &["001-notes.sql"], "");
    scene.publish_with("1.1.0", "0.13.4", &["001-notes.sql"], "", &[("BROKEN", "yes")]);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    let stopped = scene.operator.run(&[
        "rollout",
        "start",
        "notes@1.1.0",
        "--env",
        "production",
        "--wave",
        "1",
        "--wave",
        "100%",
        "--follow",
    ]);
    assert_ne!(stopped.code, 0);
    let states: Vec<String> = scene.newest()["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|deployment| deployment["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states[0], "returned", "{states:?}");
    for host in scene.fleet.hosts.iter().skip(1) {
        assert_eq!(host.exec("ls /srv/notes/releases").lines().count(), 1, "never staged");
    }
}
