//! The kill matrix: agent, supervisor or coordinator killed at a random moment of a rollout, again and again. However it
//! ends, no effect is doubled, none that is reported is missing, and no line of output is lost or doubled.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use consign_tests::wait::until;

use crate::{
    random::Random,
    scene::{ACTIVATE, Scene},
};

/// Five steps, each with an effect and some output, the third of them longer.
fn steps(version: &str) -> String {
    let mut plan = String::new();
    for step in 1..=5 {
        let pause = if step == 3 { "1" } else { "0.1" };
        plan += &format!(
            "[[step]]\nname = \"step{step}\"\nshell = \"\"\"\necho \"{version} step{step}\" >> ../../effects\n\
             for i in 1 2 3 4 5; do echo \"{version} line $i of {step}\"; done\nsleep {pause}\necho \"{version} end of {step}\"\n\"\"\"\n"
        );
        if step == 4 {
            plan += ACTIVATE;
        }
    }
    plan
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Agent,
    Coordinator,
    Supervisor,
}

#[test]
fn kill_matrix() {
    let mut random = Random::from_environment();
    let runs: u32 = std::env::var("CONSIGN_KILL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(9);
    println!("CONSIGN_TEST_SEED={} CONSIGN_KILL_RUNS={runs}", random.seed());
    let mut scene = Scene::start(&["web-1"]);
    let mut unknown = 0;
    for run in 0..runs {
        let victim = [Victim::Agent, Victim::Coordinator, Victim::Supervisor][(run % 3) as usize];
        let version = format!("1.{run}.0");
        scene.publish(&version, &steps(&version), &[]);
        let started =
            scene.operator.json(&["rollout", "start", &format!("app@{version}"), "--env", "staging"]);
        let id = started["id"].as_str().unwrap().to_owned();

        // Within the time that the rollout takes.
        let moment = Duration::from_millis(random.below(3000));
        std::thread::sleep(moment);
        kill(&mut scene, victim);

        let ended = until("the rollout ends", Duration::from_secs(90), || {
            let shown = scene.operator.json(&["rollout", "show", &id]);
            if shown["ended_ms"].as_u64().unwrap_or(0) != 0 { Ok(shown) } else { Err(shown) }
        });
        let state = ended["state"].as_str().unwrap();
        println!("run {run}: {victim:?} killed after {moment:?}: {state}");
        match state {
            "succeeded" => assert_everything_once(&scene, &id, &version),
            "unknown" => {
                assert_eq!(
                    victim,
                    Victim::Supervisor,
                    "only a lost supervisor leaves an outcome unknown: {ended}"
                );
                unknown += 1;
                assert_nothing_doubled(&scene, &version);
            }
            other => panic!("{other}: {ended}"),
        }
    }
    println!("kill matrix: {runs} kills, 0 outcomes lost or doubled, {unknown} unknown by contract");
}

fn kill(scene: &mut Scene, victim: Victim) {
    match victim {
        Victim::Agent => {
            scene.agents[0].kill();
            scene.agents[0].launch();
        }
        Victim::Coordinator => {
            scene.coordinator.kill();
            scene.coordinator.launch();
        }
        Victim::Supervisor => {
            for pid in scene.agents[0].supervisors() {
                drop(Command::new("kill").args(["-KILL", &pid.to_string()]).output());
            }
        }
    }
}

fn effects(scene: &Scene, version: &str) -> Vec<String> {
    fs::read_to_string(scene.agents[0].apps().join("app/effects"))
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with(&format!("{version} ")))
        .map(str::to_owned)
        .collect()
}

fn assert_everything_once(scene: &Scene, id: &str, version: &str) {
    let expected: Vec<String> = (1..=5).map(|step| format!("{version} step{step}")).collect();
    assert_eq!(effects(scene, version), expected);
    let deadline = Instant::now() + Duration::from_secs(20);
    for step in 1..=5 {
        let mut expected: Vec<String> =
            (1..=5).map(|line| format!("{version} line {line} of {step}")).collect();
        expected.push(format!("{version} end of {step}"));
        loop {
            let log = scene.operator.ok(&[
                "rollout",
                "logs",
                id,
                "--server",
                "web-1",
                "--step",
                &format!("step{step}"),
            ]);
            let lines: Vec<&str> =
                log.lines().filter_map(|line| line.find(version).and_then(|at| line.get(at..))).collect();
            if lines == expected {
                break;
            }
            assert!(Instant::now() < deadline, "step{step} of {version}: {lines:?}");
        }
    }
}

fn assert_nothing_doubled(scene: &Scene, version: &str) {
    let mut seen = effects(scene, version);
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all, "an effect is doubled: {seen:?}");
}
