//! What is cleaned up is never what somebody needs: on the coordinator while a rollout waits, on a server all the time.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

use consign_common::{limits::ArtifactLimits, time::SystemClock};
use consign_coordinator::{
    fleet::Sessions,
    repository::Repository,
    rollouts::{Controller, Feed, Patience, Surroundings},
    store::{StateDir, Store},
    trust_roots::TrustRoots,
};
use consign_tests::{scene::Agent, wait::until};

use super::support::{current, ended};
use crate::scene::{ACTIVATE, Scene};

/// What the coordinator cleans every hour, at its greediest: of artifacts only those that are needed stay, of ended
/// rollouts the newest `rollouts`. The coordinator is away meanwhile, since the state has one owner.
fn clean(scene: &mut Scene, rollouts: u32) {
    scene.coordinator.kill();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let state = StateDir::open(scene.coordinator.state()).unwrap();
        let (store, clock) = (Arc::new(Store::open(state).await.unwrap()), Arc::new(SystemClock));
        let trust_roots = Arc::new(TrustRoots::load(Arc::clone(&store), clock.clone()).await.unwrap());
        let repository = Arc::new(Repository::new(
            Arc::clone(&store),
            Arc::clone(&trust_roots),
            ArtifactLimits::default(),
            clock.clone(),
        ));
        let surroundings = Surroundings {
            coordinator: "cleaning".into(),
            store: Arc::clone(&store),
            repository: Arc::clone(&repository),
            trust_roots,
            sessions: Arc::new(Sessions::default()),
            feed: Feed::default(),
            clock,
            health_programs: PathBuf::new(),
        };
        let controller = Controller::new(surroundings, Patience::default());
        println!("rollouts cleaned: {}", controller.retain(rollouts).await.unwrap().len());
        println!("artifacts cleaned: {}", repository.retain(0).await.unwrap().len());
    });
    drop(runtime);
    scene.coordinator.launch();
    for agent in &scene.agents {
        scene.operator.wait_online(&agent.name);
    }
}

/// The versions that the coordinator has.
fn stocked(scene: &Scene) -> BTreeSet<String> {
    let listed = scene.operator.json(&["artifact", "list", "app"]);
    let versions = listed.as_array().unwrap().iter().map(|artifact| artifact["version"].as_str().unwrap());
    versions.map(str::to_owned).collect()
}

/// The versions that lie on the server.
fn releases(agent: &Agent) -> BTreeSet<String> {
    let entries = fs::read_dir(agent.apps().join("app/releases")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.map(|name| name.rsplit_once('-').unwrap().0.to_owned()).collect()
}

fn set(versions: &[&str]) -> BTreeSet<String> {
    versions.iter().map(|version| (*version).to_owned()).collect()
}

fn roll_back(scene: &Scene, left: &str) {
    let back = scene
        .operator
        .run(&["rollout", "rollback", left, "--env", "staging", "--reason", "test", "--follow"]);
    assert_eq!(back.code, 0, "{}{}", back.stdout, back.stderr);
}

#[test]
fn t11_cleaning_while_a_rollout_waits_deletes_nothing_that_is_needed() {
    let mut scene = Scene::start(&["web-1", "web-2"]);
    let plain = format!("keep = 2\n{ACTIVATE}");
    for version in ["0.8.0", "0.9.0", "1.0.0", "1.1.0"] {
        scene.publish(version, &plain, &[]);
        assert_eq!(scene.roll_out(version).code, 0);
    }
    let gate = scene.directory.path().join("gate");
    let waits = format!(
        "keep = 2\n[[step]]\nname = \"wait\"\nshell = \"until [ -e {} ]; do sleep 0.05; done\"\n{ACTIVATE}",
        gate.display()
    );
    scene.publish("1.2.0", &waits, &[]);
    scene.publish("1.3.0", &plain, &[]);
    let waves = ["--wave", "1", "--wave", "100%"];
    let begin = ["rollout", "start", "app@1.2.0", "--env", "staging"];
    let started = scene.operator.json(&[&begin[..], &waves[..]].concat());
    let id = started["id"].as_str().unwrap().to_owned();
    until("1.2.0 is staged on the first server", std::time::Duration::from_secs(60), || {
        let there = releases(&scene.agents[0]);
        if there.contains("1.2.0") { Ok(()) } else { Err(there) }
    });

    // web-2 has not heard of 1.2.0 yet; both run 1.1.0 and can go back to 1.0.0.
    clean(&mut scene, 200);
    assert_eq!(stocked(&scene), set(&["1.0.0", "1.1.0", "1.2.0"]), "what is needed, and nothing else");
    for agent in &scene.agents {
        assert!(releases(agent).is_superset(&set(&["1.0.0", "1.1.0"])), "{:?}", releases(agent));
    }
    fs::write(&gate, "").unwrap();
    let shown = ended(&scene, &id);
    assert_eq!(shown["state"], "succeeded", "{shown}");
    clean(&mut scene, 200);
    assert_eq!(stocked(&scene), set(&["1.1.0", "1.2.0"]));

    // A version that stays current without ever being good, and one that a queued rollback is about.
    let stuck =
        format!("keep = 2\n{ACTIVATE}[[step]]\nname = \"no\"\nshell = \"false\"\nif_fails = \"stop\"\n");
    scene.publish("1.4.0", &stuck, &[]);
    assert_eq!(scene.roll_out("1.4.0").code, 3);
    for agent in &scene.agents {
        let (there, now) = (releases(agent), current(agent));
        println!("{}: {there:?}, current {now}", agent.name);
        assert!(there.is_superset(&set(&["1.1.0", "1.2.0"])) && there.contains(&now), "{there:?} {now}");
    }
    clean(&mut scene, 200);
    assert!(stocked(&scene).is_superset(&set(&["1.1.0", "1.2.0"])), "{:?}", stocked(&scene));

    roll_back(&scene, "app@1.2.0");
    for agent in &scene.agents {
        assert_eq!(current(agent), "1.1.0");
    }
}

/// `keep` is what stays; what is needed stays also beyond it.
#[test]
fn t11_a_server_keeps_as_many_releases_as_its_plan_says() {
    let scene = Scene::start(&["web-1"]);
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"] {
        scene.publish(version, &format!("keep = 2\n{ACTIVATE}"), &[]);
        assert_eq!(scene.roll_out(version).code, 0);
        println!("after {version}: {:?}", releases(&scene.agents[0]));
    }
    assert_eq!(releases(&scene.agents[0]), set(&["1.3.0", "1.4.0"]));
    roll_back(&scene, "app");
    assert_eq!(current(&scene.agents[0]), "1.3.0");
}

/// "What servers run, and can go back to, does not depend on them" (docs/cli.md, of old rollouts).
#[test]
fn t11_a_rollback_does_not_need_the_rollout_that_brought_what_is_left() {
    let mut scene = Scene::start(&["web-1"]);
    for version in ["1.0.0", "1.1.0"] {
        scene.publish(version, ACTIVATE, &[]);
        assert_eq!(scene.roll_out(version).code, 0);
    }
    // As many failures as are kept: here one, where the coordinator keeps 200.
    scene.publish("1.2.0", &format!("[[step]]\nname = \"no\"\nshell = \"false\"\n{ACTIVATE}"), &[]);
    assert_eq!(scene.roll_out("1.2.0").code, 3);
    clean(&mut scene, 1);
    // Of what came last there is nothing to go back from, and going on to what was good before would be one too far.
    let back = |what: &str| {
        scene.operator.run(&["rollout", "rollback", what, "--env", "staging", "--reason", "test", "--follow"])
    };
    let refused = back("app");
    assert!(refused.code == 1 && refused.stderr.contains("app@VERSION"), "{}", refused.stderr);
    assert_eq!(current(&scene.agents[0]), "1.1.0");
    let named = back("app@1.1.0");
    assert_eq!(named.code, 0, "{}{}", named.stdout, named.stderr);
    assert_eq!(current(&scene.agents[0]), "1.0.0");
}
