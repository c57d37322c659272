//! Secrets from the order to the process: by both ways, masked wherever the output is cut, on no disk; and what does not
//! fit what was signed begins nothing.

use std::{collections::BTreeMap, fs, path::Path};

use consign_common::{
    deployment::DeploymentOutcome,
    name::StepName,
    sealing::{Given, Salt, Sealed, Secret},
    trust::{ConfigValue, Order, OrderKind},
};

use crate::{
    succeeded,
    world::{Agent, Artifact, World},
};

const PASSWORD: &str = "correct-horse-battery";
const NEWER: &str = "staple-of-another-horse";
const KEY: &str = "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0\n-----END KEY-----";

const PARAMS: &str = r#"
[params.password]
type = "string"
secret = true

[params.key]
type = "string"
secret = true
deliver = "file"
"#;

/// Notes the secrets' digests, so that the notes hold none.
const STEPS: &str = r#"
[[step]]
name = "use"
on = ["deploy", "return"]
shell = """
echo $CONSIGN_VERSION $(printf %s "$PASSWORD" | sha256sum | cut -c1-12) $(sha256sum < "$KEY_FILE" | cut -c1-12) >> @effects
i=1; while [ $i -lt 21 ]; do printf '%s' "$PASSWORD" | head -c $i; sleep 0.01; printf '%s' "$PASSWORD" | tail -c +$((i + 1)); echo; i=$((i + 1)); done
cat "$KEY_FILE" >&2
"""

[[step]]
name = "activate"
activate = true
"#;

const FAILS: &str = "\n[[step]]\nname = \"fails\"\nshell = \"test $CONSIGN_VERSION != 2.0.0\"\n";

fn digest(text: &str) -> String {
    consign_common::digest::Sha256::of(text.as_bytes()).short()
}

fn secret(value: &str) -> Secret {
    Secret::new(Salt::random().unwrap(), value.into())
}

/// A config with what is sealed of it, as operators make them.
struct Config {
    secrets: BTreeMap<StepName, Secret>,
}

impl Config {
    fn of(password: &str) -> Self {
        let secrets = [("password", secret(password)), ("key", secret(KEY))];
        Self { secrets: secrets.map(|(name, secret)| (name.parse().unwrap(), secret)).into() }
    }

    fn envelope(&self, world: &World, sequence: u64) -> Vec<u8> {
        let values = self
            .secrets
            .iter()
            .map(|(name, secret)| (name.clone(), ConfigValue::Commitment(secret.commitment())));
        world.config(sequence, values.collect())
    }

    fn sealed(&self, world: &World) -> Vec<u8> {
        let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
        let recipient = world.sealing_key.recipient();
        let files: Vec<(StepName, Vec<u8>)> = self
            .secrets
            .iter()
            .map(|(name, secret)| {
                let given = Given { app: &app, environment: &environment, name };
                (name.clone(), given.seal(secret, &recipient).unwrap())
            })
            .collect();
        Sealed::new(files.iter().map(|(name, file)| (name, file.as_slice()))).to_vec()
    }
}

fn deploy(world: &World, artifact: &Artifact) -> Order {
    world.order(OrderKind::deploy(artifact.digest, false))
}

async fn give(world: &World, agent: &Agent, artifact: &Artifact, config: &Config, sequence: u64) -> Order {
    let order = deploy(world, artifact);
    let message = world.send_with(&order, artifact, config.envelope(world, sequence), config.sealed(world));
    agent.give(message).await;
    order
}

fn assert_nowhere(directory: &Path, texts: &[&str]) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            assert_nowhere(&path, texts);
        } else if kind.is_file() {
            // The journal's side files go when it is closed.
            let content = match fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                content => content.unwrap(),
            };
            for text in texts {
                let found = content.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{text} stands in {}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn they_reach_the_process_by_both_ways_and_stand_nowhere() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], &format!("{PARAMS}{STEPS}"));
    let order = give(&world, &agent, &artifact, &Config::of(PASSWORD), 1).await;
    let events = agent.events().await;
    assert!(events.iter().all(|event| !format!("{event:?}").contains(PASSWORD)), "{events:?}");
    assert_eq!(world.effects(), [format!("1.0.0 {} {}", digest(PASSWORD), digest(KEY))]);
    let log = world.log(&order.deployment, "deploy-0-1");
    assert_eq!(log.matches("******\n").count(), 20, "wherever it was cut: {log}");
    assert_eq!(log.matches("******").count(), 21, "and the file as a whole: {log}");
    agent.kill().await;
    // Journal with its write-ahead log, logs, releases.
    assert_nowhere(world.dir.path(), &[PASSWORD, "MIIBVgIBADANBgkqhkiG9w0"]);
}

#[tokio::test]
async fn with_a_newer_config_it_runs_again_and_a_way_back_has_the_older_one() {
    let world = World::new();
    let mut agent = world.start().await;
    let plan = format!("{PARAMS}{STEPS}{FAILS}");
    let one = world.publish("1.0.0", &[("index", "one")], &plan);
    let (first, second, third) =
        (Config::of(PASSWORD), Config::of(NEWER), Config::of("a third horse's name"));
    give(&world, &agent, &one, &first, 1).await;
    assert_eq!(agent.ended().await, succeeded());
    // The same artifact and the same statement: what is new is the config.
    give(&world, &agent, &one, &second, 2).await;
    assert_eq!(agent.ended().await, succeeded());
    let note = |version: &str, password: &str| format!("{version} {} {}", digest(password), digest(KEY));
    assert_eq!(world.effects(), [note("1.0.0", PASSWORD), note("1.0.0", NEWER)]);

    // A failure goes back to what runs, with what that ran with last; also in another life of the agent.
    agent.kill().await;
    let mut agent = world.start().await;
    let two = world.publish("2.0.0", &[("index", "two")], &plan);
    give(&world, &agent, &two, &third, 3).await;
    // What nobody has acknowledged is told again first.
    let outcome = loop {
        let outcome = agent.ended().await;
        if outcome != succeeded() {
            break outcome;
        }
    };
    assert!(matches!(outcome, DeploymentOutcome::Returned { .. }), "{outcome:?}");
    assert_eq!(world.effects()[2..], [note("2.0.0", "a third horse's name"), note("1.0.0", NEWER)]);

    // And so does a return that is ordered.
    let three = world.publish("3.0.0", &[("index", "three")], &plan);
    give(&world, &agent, &three, &third, 3).await;
    assert_eq!(agent.ended().await, succeeded());
    let back = world.order(OrderKind::back(one.digest, "test"));
    agent.give(world.send(&back, &one)).await;
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects().last().unwrap(), &note("1.0.0", NEWER));
    agent.kill().await;
    assert_nowhere(world.dir.path(), &[PASSWORD, NEWER, "a third horse's name"]);
}

#[tokio::test]
async fn what_was_not_signed_begins_nothing_and_is_refused_by_name() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], &format!("{PARAMS}{STEPS}"));
    let (config, other) = (Config::of(PASSWORD), Config::of(NEWER));
    let envelope = config.envelope(&world, 1);
    let swapped = {
        let mut sealed = Sealed::parse(&config.sealed(&world)).unwrap();
        let files: Vec<String> = sealed.values.values().rev().cloned().collect();
        sealed.values.values_mut().zip(files).for_each(|(value, file)| *value = file);
        sealed.to_vec()
    };
    let half = {
        let mut sealed = Sealed::parse(&config.sealed(&world)).unwrap();
        sealed.values.retain(|name, _| name.as_str() == "key");
        sealed.to_vec()
    };
    let short = Config::of("12345");
    for (envelope, sealed, code) in [
        (envelope.clone(), Vec::new(), "secret-missing"),
        (envelope.clone(), half, "secret-missing"),
        (envelope.clone(), swapped, "secret-mismatch"),
        (envelope.clone(), other.sealed(&world), "secret-mismatch"),
        (envelope.clone(), config.sealed(&World::new()), "secret-mismatch"),
        (envelope.clone(), b"{}".to_vec(), "malformed"),
        (short.envelope(&world, 1), short.sealed(&world), "secret-invalid"),
    ] {
        let order = deploy(&world, &artifact);
        agent.give(world.send_with(&order, &artifact, envelope, sealed)).await;
        let (refused, message) = agent.refusal().await;
        assert_eq!(refused, code, "{message}");
        assert!(!message.contains(PASSWORD) && !message.contains("12345"), "{message}");
    }
    assert!(world.effects().is_empty() && world.current().is_none());
    // The next honest one works.
    give(&world, &agent, &artifact, &config, 1).await;
    assert_eq!(agent.ended().await, succeeded());
    // Older than what was taken.
    let newer = world.publish("1.1.0", &[("index", "two")], &format!("{PARAMS}{STEPS}"));
    give(&world, &agent, &newer, &other, 2).await;
    assert_eq!(agent.ended().await, succeeded());
    let next = world.publish("1.2.0", &[("index", "three")], &format!("{PARAMS}{STEPS}"));
    let order = deploy(&world, &next);
    agent.give(world.send_with(&order, &next, envelope, config.sealed(&world))).await;
    assert_eq!(agent.refusal().await.0, "config-older");
    agent.kill().await;
}

/// A step that runs when the agent dies keeps what it was given, and the next agent goes on with it.
#[tokio::test]
async fn a_step_outlives_its_agent_with_its_secrets() {
    let world = World::new();
    let agent = world.start().await;
    let steps = "[[step]]\nname = \"wait\"\nshell = \"echo begin >> @effects; while ! test -e @effects.go; do sleep 0.02; done; \
                 echo $(sha256sum < $KEY_FILE | cut -c1-12) >> @effects; echo $PASSWORD\"\n[[step]]\nname = \"activate\"\nactivate = true\n\
                 [[step]]\nname = \"after\"\nshell = \"echo $(printf %s $PASSWORD | sha256sum | cut -c1-12) >> @effects\"\n";
    let artifact = world.publish("1.0.0", &[("index", "one")], &format!("{PARAMS}{steps}"));
    let order = give(&world, &agent, &artifact, &Config::of(PASSWORD), 1).await;
    world.effect("begin").await;
    agent.kill().await;
    let mut agent = world.start().await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects(), ["begin".to_owned(), digest(KEY), digest(PASSWORD)]);
    assert_eq!(world.log(&order.deployment, "deploy-0-1"), "******\n");
    agent.kill().await;
    assert_nowhere(world.dir.path(), &[PASSWORD, "MIIBVgIBADANBgkqhkiG9w0"]);
}
