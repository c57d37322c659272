//! Secrets reach the step, and nothing else.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use consign_agent::supervisor::{AttemptSpec, reap_lost};
use consign_common::deployment::{StepOutcome, log::Stream};

use crate::harness::{Deployment, kill, until};

const TOKEN: &str = "correct-horse-battery";
const KEY: &str = "-----BEGIN-----\nMIIBVgIBADANBgkq\n-----END-----";

/// With a secret as a variable and one as a file.
fn with_secrets(deployment: &Deployment, script: &str) -> AttemptSpec {
    let mut spec = deployment.shell(script);
    spec.env.insert("TOKEN".to_owned(), TOKEN.to_owned());
    spec.files = BTreeMap::from([("KEY_FILE".to_owned(), KEY.to_owned())]);
    spec.secrets = consign_common::sealing::masks([TOKEN, KEY]);
    spec
}

fn is_anywhere(directory: &std::path::Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => is_anywhere(&entry.path(), text),
        Ok(kind) if kind.is_file() => {
            let content = fs::read(entry.path()).unwrap();
            content.windows(text.len()).any(|window| window == text.as_bytes())
        }
        Ok(_) | Err(_) => false,
    })
}

/// The path that the step was given, as it wrote it down.
fn path_in(file: &std::path::Path) -> PathBuf {
    fs::read_to_string(file).unwrap().trim().into()
}

#[tokio::test]
async fn a_step_has_them_as_a_variable_and_as_a_file_while_it_runs() {
    let deployment = Deployment::start().await;
    let script = "printf %s \"$TOKEN\" > token; cp \"$KEY_FILE\" key; echo \"$KEY_FILE\" > path; \
         stat -c '%a %u %h' \"$KEY_FILE\" \"$(dirname \"$KEY_FILE\")\"; stat -f -c %T \"$KEY_FILE\"";
    let spec = with_secrets(&deployment, script);
    assert_eq!(deployment.execute(&spec).await.result, StepOutcome::Succeeded);
    assert_eq!(fs::read_to_string(deployment.scratch("token")).unwrap(), TOKEN);
    assert_eq!(fs::read_to_string(deployment.scratch("key")).unwrap(), KEY);
    let own = rustix::process::geteuid().as_raw();
    let said = deployment.said(spec.attempt, Stream::Stdout);
    assert_eq!(said, format!("400 {own} 1\n500 {own} 2\ntmpfs\n"), "in memory, and nobody else's");
    let path = path_in(&deployment.scratch("path"));
    assert!(!path.exists() && !path.parent().unwrap().exists(), "gone with the attempt");
    for text in [TOKEN, "MIIBVgIBADANBgkq"] {
        assert!(!is_anywhere(&deployment.directory, text), "{text} is in the supervisor's directory");
    }
}

#[tokio::test]
async fn a_step_of_another_user_reads_its_own_and_no_other_does() {
    assert!(rustix::process::geteuid().is_root(), "this test must run as root: it becomes nobody");
    let deployment = Deployment::start().await;
    fs::set_permissions(deployment.scratch(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = with_secrets(&deployment, "id -un; wc -l < \"$KEY_FILE\"");
    (spec.user, spec.cwd) = (Some("nobody".to_owned()), "/".into());
    assert_eq!(deployment.execute(&spec).await.result, StepOutcome::Succeeded);
    assert_eq!(deployment.said(spec.attempt, Stream::Stdout), "nobody\n2\n");
    // Root reads everything, so the other one is looked at from a third user's side.
    let mut spec = with_secrets(&deployment, "");
    (spec.attempt, spec.user, spec.cwd) =
        ("deploy-1-1".parse().unwrap(), Some("nobody".to_owned()), "/".into());
    let wait = deployment.scratch("go-on");
    spec.argv = vec![
        "/bin/sh".into(),
        "-c".into(),
        format!("echo \"$KEY_FILE\"; while [ ! -e {} ]; do sleep 0.01; done", wait.display()),
    ];
    deployment.begin(&spec).await;
    until("it says where", || deployment.said(spec.attempt, Stream::Stdout).ends_with('\n')).await;
    let path = deployment.said(spec.attempt, Stream::Stdout).trim().to_owned();
    let other = std::process::Command::new("setpriv")
        .args(["--reuid=1", "--regid=1", "--clear-groups", "cat", &path])
        .output()
        .unwrap();
    assert!(!other.status.success(), "{other:?}");
    fs::write(&wait, "").unwrap();
    deployment.end(spec.attempt).await;
}

#[tokio::test]
async fn a_secret_that_is_written_in_two_pieces_is_masked_wherever_it_is_cut() {
    let deployment = Deployment::start().await;
    let script = "i=1; while [ $i -lt 21 ]; do printf '%s' \"$TOKEN\" | head -c $i; sleep 0.02; \
                  printf '%s' \"$TOKEN\" | tail -c +$((i + 1)); echo; i=$((i + 1)); done; \
                  while read -r line; do echo \"> $line\"; done < \"$KEY_FILE\"";
    let spec = with_secrets(&deployment, script);
    assert_eq!(deployment.execute(&spec).await.result, StepOutcome::Succeeded);
    let expected = format!("{}> ******\n> ******\n", "******\n".repeat(20));
    assert_eq!(deployment.said(spec.attempt, Stream::Stdout), expected);
}

#[tokio::test]
async fn what_is_left_running_is_named_without_its_secrets() {
    let deployment = Deployment::start().await;
    let script = "sh -c 'sleep 600; exit 0' \"$TOKEN\" </dev/null >/dev/null 2>&1 & sleep 0.2";
    let spec = AttemptSpec { leaves: true, ..with_secrets(&deployment, script) };
    let record = deployment.execute(&spec).await;
    let listed: Vec<&str> = record.leftovers.iter().map(|leftover| leftover.command.as_str()).collect();
    assert!(listed.contains(&"sh -c sleep 600; exit 0 ******"), "{listed:?}");
    assert!(deployment.said(spec.attempt, Stream::System).contains("exit 0 ******"));
    assert!(!is_anywhere(&deployment.directory, TOKEN));
    for leftover in record.leftovers {
        kill(leftover.pid);
    }
}

#[tokio::test]
async fn of_a_lost_supervisor_no_file_stays() {
    let deployment = Deployment::start().await;
    let spec = with_secrets(&deployment, "echo \"$KEY_FILE\" > path.new; mv path.new path; sleep 600");
    let identity = deployment.begin(&spec).await;
    let written = deployment.scratch("path");
    until("it says where", || written.exists()).await;
    let path = path_in(&written);
    assert!(path.exists());
    kill(deployment.supervisor_pid(&identity));
    reap_lost(identity).await.unwrap();
    assert!(!path.exists());
}
