//! Configs that are old, swapped, or somebody else's.

use std::ops::Add as _;

use consign_common::{
    digest::Sha256,
    json,
    name::StepName,
    sealing::{Given, Recipient, Salt, Sealed, SealingKey, Secret},
    trust::{Config, ConfigValue, Predicate},
};

use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    world::{Artifact, STEPS, Shot, World},
};

const PARAMS: &str = r#"
[params.color]
type = "string"
pattern = "[a-z]+"
default = "none"

[params.workers]
type = "int"
default = 4
"#;

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::refused("config-withheld", "config-older", "an approved artifact without the config, after a config was accepted", |world| {
        configured(world);
        let artifact = world.artifact();
        let config = world.config.take();
        let statements = world.evidence(&artifact);
        world.config = config;
        vec![world.deploy(&artifact, statements)]
    })
    .own(),
    Attack::refused("config-downgraded", "config-older", "an approved artifact with the config before, which was rightly signed, and approvals of that", |world| {
        configured(world);
        let old = world.config.clone();
        configure(world, 2, "blue");
        world.honest();
        let artifact = world.artifact();
        let new = std::mem::replace(&mut world.config, old);
        let statements = world.evidence(&artifact);
        world.config = new;
        vec![world.deploy(&artifact, statements)]
    })
    .own(),
    Attack::refused("config-swapped", "config-not-approved", "approvals of one config, and another that is newer and rightly signed; approvals that name no config", |world| {
        configured(world);
        let artifact = world.artifact();
        let of_old = world.approvals(&artifact, |_| {});
        let of_none = world.approvals(&artifact, |approval| approval.config_sha256 = None);
        configure(world, 2, "blue");
        let shots = [of_old, of_none].map(|approvals| {
            let statements = world.evidence_with(&artifact, approvals);
            world.deploy(&artifact, statements)
        });
        shots.into()
    })
    .own(),
    Attack::refused("config-by-others", "config-older", "a newer config signed by the publisher, a product owner, the root key: not looked at, as if there were none", |world| {
        configured(world);
        ["ci", "pat", "alice", "eve"]
            .map(|by| {
                let (statement, digest) = world.config_by(by, 2, &values("blue"));
                bringing(world, statement, digest)
            })
            .into()
    })
    .own(),
    Attack::refused("config-of-another-place", "config-older", "the config of another environment, of another app", |world| {
        configured(world);
        let changes: [fn(&mut Config); 2] = [
            |config| config.environment = "staging".parse().unwrap(),
            |config| config.app = "blog".parse().unwrap(),
        ];
        changes
            .map(|change| {
                let mut config = config(2, "blue");
                change(&mut config);
                let digest = Sha256::of(&json::to_vec(&config.values));
                let statement = world.authority.statement(&["carl"], digest, Predicate::Config(config));
                bringing(world, statement, digest)
            })
            .into()
    })
    .own(),
    Attack::refused("a30-config-that-does-not-fit", "config-invalid", "configs, rightly signed and approved, with a value beside its pattern (`$(touch x)`, a line's end, a NUL), of another type, of a name that the plan does not declare; with the subject of another; with the sequence 0", |world| {
        configured(world);
        let text = |text: &str| ConfigValue::String(text.into());
        let bad: [(&str, ConfigValue); 8] = [
            ("color", text("$(touch x)")),
            ("color", text("red\nblue")),
            ("color", text("red\0")),
            ("color", text("")),
            ("color", ConfigValue::Int(1)),
            ("workers", text("4")),
            ("ld_preload", text("x")),
            ("shade", text("dark")),
        ];
        let mut shots: Vec<Shot> = bad
            .into_iter()
            .map(|(name, value)| {
                let (statement, digest) = world.config_by("carl", 2, &[(name, value)]);
                bringing(world, statement, digest)
            })
            .collect();
        let predicate = Predicate::Config(config(2, "blue"));
        let statement = world.authority.statement(&["carl"], Sha256::of(b"another"), predicate);
        shots.push(bringing(world, statement, Sha256::of(b"another")));
        let (statement, digest) = world.config_by("carl", 0, &values("blue"));
        shots.push(bringing(world, statement, digest));
        shots
    })
    .own(),
    Attack::refused("two-configs-of-one-sequence", "config-invalid", "two configs of the same sequence, both rightly signed", |world| {
        configured(world);
        let artifact = world.artifact();
        let (other, digest) = world.config_by("carl", 1, &values("blue"));
        let approvals = world.approvals(&artifact, |approval| approval.config_sha256 = Some(digest));
        let mut statements = world.evidence_with(&artifact, approvals);
        statements.push(other);
        vec![world.deploy(&artifact, statements)]
    })
    .own(),
    Attack::refused("secret-of-another-server", "secret-mismatch", "secrets that are sealed to another server's key, to this one's with another value, another salt, of another app, environment or name; no age file", |world| {
        with_secret(world);
        let recipient = world.recipient();
        let other = SealingKey::generate().recipient();
        let honest = secret();
        let swapped = Secret::new(honest.salt(), "another-password".into());
        let salted = Secret::new(Salt::random().unwrap(), honest.value().into());
        let files = [
            sealed(&other, &honest, ["shop", "production", "password"]),
            sealed(&recipient, &swapped, ["shop", "production", "password"]),
            sealed(&recipient, &salted, ["shop", "production", "password"]),
            sealed(&recipient, &honest, ["blog", "production", "password"]),
            sealed(&recipient, &honest, ["shop", "staging", "password"]),
            sealed(&recipient, &honest, ["shop", "production", "other"]),
            b"age-encryption.org/v1\n".to_vec(),
        ];
        files.map(|file| bringing_sealed(world, &[("password", &file)])).into()
    })
    .own(),
    Attack::refused("secret-withheld", "secret-missing", "an approved artifact with its config, and none of what it seals; the right value under another name", |world| {
        with_secret(world);
        let file = sealed(&world.recipient(), &secret(), ["shop", "production", "password"]);
        let mut without = bringing_sealed(world, &[]);
        without.order.sealed = Vec::new().into();
        vec![without, bringing_sealed(world, &[]), bringing_sealed(world, &[("other", &file)])]
    })
    .own(),
    Attack::free("a30-value-reaches-the-step-as-it-is", Outcome::Remains("the accepted value is what the step sees, byte for byte, and no shell reads it"), "a config whose value is `$(echo evil); 'x' \\ \"`", |world| {
        let value = "$(echo evil); 'x' \\ \"";
        world.params = "[params.color]\ntype = \"string\"\ndefault = \"none\"\n";
        world.configure(1, &[("color", ConfigValue::String(value.into()))]);
        let plan = format!("{}{STEPS}[[step]]\nname = \"show\"\nshell = 'printf \"%s\\n\" \"$COLOR\" >> @effects'\n", world.params);
        let artifact = world.artifact_of("shop", &plan);
        let statements = world.evidence(&artifact);
        world.honest_with(&artifact, statements);
        assert!(world.effects().iter().any(|line| line == value), "{:?}", world.effects());
    })
    .own(),
];

const PASSWORD: &str = "correct-horse-battery";

fn secret() -> Secret {
    Secret::new(Salt::from_base64(&"A".repeat(43).add("=")).unwrap(), PASSWORD.into())
}

/// The age file of a secret that is called so: app, environment, name.
fn sealed(recipient: &Recipient, secret: &Secret, called: [&str; 3]) -> Vec<u8> {
    let [app, environment, name] = called;
    let (app, environment, name) =
        (app.parse().unwrap(), environment.parse().unwrap(), name.parse().unwrap());
    Given { app: &app, environment: &environment, name: &name }.seal(secret, recipient).unwrap()
}

fn document(files: &[(&str, &[u8])]) -> Vec<u8> {
    let files: Vec<(StepName, &[u8])> =
        files.iter().map(|(name, file)| (name.parse().unwrap(), *file)).collect();
    Sealed::new(files.iter().map(|(name, file)| (name, *file))).to_vec()
}

/// A config with a secret is accepted.
fn with_secret(world: &mut World) {
    world.params = "[params.password]\ntype = \"string\"\nsecret = true\n";
    world.configure(1, &[("password", ConfigValue::Commitment(secret().commitment()))]);
    let file = sealed(&world.recipient(), &secret(), ["shop", "production", "password"]);
    world.sealed = document(&[("password", &file)]);
    world.honest();
}

/// All but what is sealed is honest.
fn bringing_sealed(world: &mut World, files: &[(&str, &[u8])]) -> Shot {
    let artifact = world.artifact();
    let statements = world.evidence(&artifact);
    let mut shot = world.deploy(&artifact, statements);
    shot.order.sealed = document(files).into();
    shot
}

fn config(sequence: u64, color: &str) -> Config {
    Config {
        app: "shop".parse().unwrap(),
        environment: "production".parse().unwrap(),
        sequence,
        values: values(color).map(|(name, value)| (name.parse().unwrap(), value)).into(),
    }
}

fn values(color: &str) -> [(&'static str, ConfigValue); 2] {
    [("color", ConfigValue::String(color.into())), ("workers", ConfigValue::Int(8))]
}

fn configure(world: &mut World, sequence: u64, color: &str) {
    world.configure(sequence, &values(color));
}

/// Config 1 is accepted.
fn configured(world: &mut World) {
    world.params = PARAMS;
    configure(world, 1, "red");
    world.honest();
}

/// All but the config is honest, and approved with it.
fn bringing(world: &mut World, statement: Vec<u8>, digest: Sha256) -> Shot {
    let artifact: Artifact = world.artifact();
    let in_force = world.config.replace((statement, digest));
    let statements = world.evidence(&artifact);
    world.config = in_force;
    world.deploy(&artifact, statements)
}
