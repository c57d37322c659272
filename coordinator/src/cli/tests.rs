//! The command line as users meet it: every help text, what is refused before anything is done, what init leaves.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use clap::{CommandFactory, Parser};
use consign_common::{
    name::{Environment, Owner},
    trust::{KeyFile, Scheme, SigningKey, TrustRoot},
};

use super::{
    args::{Cli, Command},
    failure::Exit,
    init,
    key::PublicKeyFile,
    print::{Format, Printer},
    profile::Home,
    trust::gate_text,
};
use crate::bundle::Bundle;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_every_command() {
    fn collect(path: &str, command: &mut clap::Command, text: &mut String) {
        text.push_str(&format!("==== {path}\n{}\n", command.render_help()));
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            if let Some(sub) = command.find_subcommand_mut(name) {
                collect(&format!("{path} {name}"), sub, text);
            }
        }
    }
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = String::new();
    collect("consign", &mut command, &mut text);
    insta::assert_snapshot!(text);
}

#[test]
fn misuse_is_exit_code_2() {
    for line in [
        "consign",
        "consign deploy",
        "consign rollout start shop --env staging",
        "consign rollout start Shop@1 --env staging",
        "consign rollout start shop@1",
        "consign rollout rollback --reason x",
        "consign rollout rollback shop --reason x",
        "consign rollout rollback shop --env staging --rollout 0a1b --reason x",
        "consign rollout rollback shop --env staging",
        "consign rollout abort 0a1b",
        "consign rollout abort 0a1b --follow --reason x",
        "consign rollout pause 0a1b",
        "consign rollout skip 0a1b --reason x",
        "consign rollout decide 0a1b --server web-1 --step migrate perhaps --reason x",
        "consign rollout start shop@1 --env staging --offline wait",
        "consign rollout start shop@1 --env staging --offline later",
        "consign rollout start shop@1 --env staging --group zone",
        "consign rollout start shop@1 --env staging --bake 5",
        "consign rollout start shop@1 --env staging --at yesterday",
        "consign rollout start shop@1 --env staging --plan 9f",
        "consign rollout start shop@1 --env staging --on-stop explode",
        "consign rollout start shop@1 --env staging --canary a=b --no-canary",
        "consign rollout start shop@1 --env staging --health-http https://shop/",
        "consign rollout start shop@1 --env staging --health-command ../sh",
        "consign rollout start shop@1 --env staging --health-status 200",
        // A variable that is not set must not mean every server.
        "consign rollout start shop@1 --env staging --only=",
        "consign rollout plan shop@1 --env staging --only=",
        "consign rollout rollback shop --env staging --reason x --only=",
        "consign rollout abort 0a1b --reason=",
        "consign env lift-hold shop --env staging",
        "consign server token --name Web_1 --env staging",
        "consign server token --name web-1 --env staging --ttl 1",
        "consign operator add grace --role root",
        "consign init --env staging",
        "consign init --app shop --env staging --approver staging",
        "consign trust update --publisher ci.pub",
        "consign status --output yaml",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{line}");
    }
    assert_eq!(parse("consign rollout --help").unwrap_err().exit_code(), 0);
}

fn init_into(dir: &Path) -> Result<(), super::failure::Failure> {
    init_with(dir, "")
}

fn init_with(dir: &Path, more: &str) -> Result<(), super::failure::Failure> {
    let line = "consign init --app shop --app blog --env staging --owner ada --advertise deploy.example";
    let cli = parse(&format!("{line}{more}"));
    let Command::Init(args) = cli.unwrap().command else { panic!("not init") };
    init::run(&args, &Home::at(dir.to_owned()), &Printer::new(Format::Json))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn init_makes_a_home_whose_parts_fit() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("new/home"));
    init_into(home.root()).unwrap();

    let (envelope, root) = home.trust_root().unwrap();
    let bundle = Bundle::read(&home.bundle_path()).unwrap();
    assert_eq!(bundle.trust_root().unwrap(), envelope);
    let (_, owner) = KeyFile::read(&home.owner_key_path()).unwrap();
    let (_, publisher) = KeyFile::read(&home.publisher_key_path()).unwrap();
    assert_eq!(root.root.keys, [owner.public().id()]);
    assert_eq!(root.apps.len(), 2);
    assert!(root.apps.values().all(|app| app.publishers.keys == [publisher.public().id()]));
    let profile = home.profile().unwrap();
    assert_eq!(root.coordinators[0].ca_sha256, profile.ca_sha256);
    assert_eq!(root.coordinators[0].id, profile.coordinator);
    assert_eq!(profile.address, "deploy.example:7443");
    let identity = consign_common::tls::Identity::read(&home.operator_path()).unwrap();
    assert_eq!(identity.peer().unwrap().spki_sha256, bundle.operator.spki_sha256);
    assert!(TrustRoot::open_pinned(&envelope, TrustRoot::pin(&envelope).unwrap()).is_ok());

    for path in [home.owner_key_path(), home.publisher_key_path(), home.bundle_path(), home.operator_path()] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(home.root()), 0o700);
}

#[test]
fn init_gates_an_environment_by_those_who_approve_there() {
    let dir = tempfile::tempdir().unwrap();
    let (pat, sam) = (dir.path().join("pat.pub"), dir.path().join("sam.pub"));
    for (name, file) in [("pat", &pat), ("sam", &sam)] {
        let key = SigningKey::generate().unwrap();
        let public = PublicKeyFile::new(name.parse().unwrap(), Scheme::Ed25519, &key.public());
        fs::write(file, consign_common::json::to_vec(&public)).unwrap();
    }
    let approvers = |environment: &str| {
        let of = |file: &Path| format!(" --approver {environment}={}", file.display());
        of(&pat) + &of(&sam)
    };
    let home = Home::at(dir.path().join("home"));
    init_with(home.root(), &format!(" --env production{}", approvers("production"))).unwrap();
    let (_, root) = home.trust_root().unwrap();
    let gate = |name: &str| gate_text(&root.environments[&name.parse::<Environment>().unwrap()]);
    assert_eq!(gate("staging"), "publisher-only");
    assert_eq!(
        gate("production"),
        "approval by 1 of production-approvers; whoever published counts for none of it"
    );
    let role = &root.roles[&"production-approvers".parse::<Owner>().unwrap()];
    assert_eq!((role.keys.len(), role.threshold), (2, 1));
    let owners: Vec<&str> = role.keys.iter().map(|id| root.keys[id].owner.as_str()).collect();
    assert_eq!(owners, ["pat", "sam"]);
    assert!(root.apps.values().all(|app| app.publishers.threshold == 1), "and all else is as without");

    let other = dir.path().join("other");
    let failure = init_with(&other, &approvers("production")).unwrap_err();
    assert!(failure.what.contains("there is no --env production"), "{failure}");
    fs::write(&sam, "ssh-rsa AAAA sam").unwrap();
    assert!(init_with(&other, &approvers("staging")).is_err());
    assert!(!other.exists() && fs::read_dir(dir.path()).unwrap().count() == 3, "nothing is left half-done");
}

#[test]
fn the_bundle_holds_no_signing_key() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    init_into(home.root()).unwrap();
    let bundle = fs::read_to_string(home.bundle_path()).unwrap();
    for path in [home.owner_key_path(), home.publisher_key_path()] {
        let (file, _) = KeyFile::read(&path).unwrap();
        assert!(!bundle.contains(&file.private), "{}", path.display());
    }
}

#[test]
fn init_overwrites_nothing_and_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    init_into(&home).unwrap();
    let before = fs::read(home.join("trust-root.json")).unwrap();
    let failure = init_into(&home).unwrap_err();
    assert!(failure.what.contains("not empty"), "{failure}");
    assert_eq!(fs::read(home.join("trust-root.json")).unwrap(), before);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["home"]);
}
