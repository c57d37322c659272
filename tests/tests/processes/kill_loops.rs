//! kill -9, again and again: of the agent, and of the coordinator of a fleet, many times within each long deployment.
//! Whatever the moment: no effect is lost or doubled, no line of output, and nothing is stuck.
//!
//! `CONSIGN_KILL_RUNS` says how many kills each loop makes.

use std::{
    fs,
    time::{Duration, Instant},
};

use consign_tests::scene::Agent;

use crate::{
    patient,
    random::Random,
    scene::{ACTIVATE, Scene},
};

/// Of each deployment, beside `activate`.
const STEPS: usize = 20;
const LINES: usize = 5;
/// From the start of a rollout to its end under kills, agents that wait before they try again included.
const LONGEST: Duration = Duration::from_secs(300);
/// For output that is still on its way when nobody is killed any more.
const REST: Duration = Duration::from_secs(90);
/// Kills within one deployment: agents that have found nobody often enough wait for up to half a minute, and then there is
/// little left to disturb.
const MOST_OF_ONE: u64 = 60;
/// Kills from which on it is a whole fleet that the coordinator has.
const MANY: u64 = 500;

fn kills() -> u64 {
    std::env::var("CONSIGN_KILL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(20)
}

fn plan(version: &str) -> String {
    let mut plan = String::new();
    for step in 1..=STEPS {
        plan += &format!(
            "[[step]]\nname = \"step{step}\"\nshell = \"\"\"\necho \"{version} step{step}\" >> ../../effects\n\
             for line in 1 2 3 4 5; do echo \"{version} line $line of {step}\"; done\nsleep 0.1\n\"\"\"\n"
        );
        if step == STEPS / 2 {
            plan += ACTIVATE;
        }
    }
    plan
}

/// What a loop came to.
#[derive(Debug, Default)]
struct Total {
    kills: u64,
    deployments: usize,
    effects: usize,
    lines: usize,
}

/// Rollouts to all agents of the scene, until `kill` has been carried out that often.
fn deploy_under_kills(
    scene: &mut Scene,
    random: &mut Random,
    kills: u64,
    pause_ms: u64,
    kill: impl Fn(&mut Scene),
) -> Total {
    let mut total = Total::default();
    for round in 0.. {
        if total.kills >= kills {
            break;
        }
        let version = format!("1.{round}.0");
        scene.publish(&version, &plan(&version), &[]);
        let began = Instant::now();
        let id = until("the rollout starts", began, LONGEST, || patient::start(&scene.operator, &version));
        let most = (total.kills + MOST_OF_ONE).min(kills);
        loop {
            std::thread::sleep(Duration::from_millis(20 + random.below(pause_ms)));
            if total.kills < most {
                kill(scene);
                total.kills += 1;
            }
            match patient::ended(&scene.operator, &id) {
                Ok(shown) => {
                    assert_eq!(shown["state"], "succeeded", "{shown:#}");
                    break;
                }
                Err(why) => assert!(began.elapsed() < LONGEST, "{version} is stuck: {why}"),
            }
        }
        for agent in &scene.agents {
            assert_effects(agent, &version);
        }
        let output =
            until("its output is there", Instant::now(), REST, || patient::output(&scene.operator, &id));
        assert_output(scene, &version, &output.unwrap_or_else(|why| panic!("{version}: {why}")));
        total.deployments += scene.agents.len();
        total.effects += scene.agents.len() * STEPS;
        total.lines += scene.agents.len() * STEPS * LINES;
        println!("{version}: {} kills so far, ended after {:?}", total.kills, began.elapsed());
    }
    total
}

fn assert_effects(agent: &Agent, version: &str) {
    let effects = fs::read_to_string(agent.apps().join("app/effects")).unwrap_or_default();
    let prefix = format!("{version} ");
    let found: Vec<&str> = effects.lines().filter(|line| line.starts_with(&prefix)).collect();
    let expected: Vec<String> = (1..=STEPS).map(|step| format!("{version} step{step}")).collect();
    assert_eq!(found, expected, "on {}", agent.name);
}

fn assert_output(scene: &Scene, version: &str, output: &patient::Output) {
    for agent in &scene.agents {
        for step in 1..=STEPS {
            let expected: String =
                (1..=LINES).map(|line| format!("{version} line {line} of {step}\n")).collect();
            let name = format!("step{step}");
            let of_step = output.iter().filter(|((server, step, _, stream), _)| {
                *server == agent.name && *step == name && stream == "stdout"
            });
            let found: Vec<&str> = of_step.map(|(_, text)| text.as_str()).collect();
            assert_eq!(found, [expected], "{name} of {version} on {}", agent.name);
        }
    }
}

/// Asks until there is an answer.
fn until<T>(what: &str, began: Instant, longest: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => assert!(began.elapsed() < longest, "stuck: {what}: not within {longest:?}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

fn report(whose: &str, total: &Total) {
    let Total { kills, deployments, effects, lines } = total;
    println!(
        "{kills} kills of the {whose} in {deployments} deployments: of {effects} effects 0 lost, 0 doubled; of {lines} \
         lines 0 lost, 0 doubled; 0 stuck"
    );
}

#[test]
fn the_agent_again_and_again() {
    let (mut random, kills) = (Random::from_environment(), kills());
    println!("CONSIGN_TEST_SEED={} CONSIGN_KILL_RUNS={kills}", random.seed());
    let mut scene = Scene::start(&["web-1"]);
    let total = deploy_under_kills(&mut scene, &mut random, kills, 400, |scene| {
        scene.agents[0].kill();
        scene.agents[0].launch();
    });
    report("agent", &total);
}

#[test]
fn the_coordinator_again_and_again() {
    let (mut random, kills) = (Random::from_environment(), kills());
    println!("CONSIGN_TEST_SEED={} CONSIGN_KILL_RUNS={kills}", random.seed());
    let servers: Vec<String> = (1..=if kills >= MANY { 20 } else { 5 }).map(|n| format!("web-{n}")).collect();
    let mut scene = Scene::start(&servers.iter().map(String::as_str).collect::<Vec<_>>());
    let total = deploy_under_kills(&mut scene, &mut random, kills, 1200, |scene| {
        scene.coordinator.kill();
        // Not waited for: it may be killed again before it listens.
        scene.coordinator.launch_with(|_| {});
    });
    report(&format!("coordinator of {} agents", servers.len()), &total);
}
