//! What a program finds around it, and what becomes of one that cannot be executed.

use std::os::unix::fs::PermissionsExt;

use consign_agent::supervisor::AttemptSpec;
use consign_common::deployment::{Failure, StepOutcome, log::Stream};

use crate::harness::Deployment;

async fn exec_failure(spec: impl FnOnce(&Deployment) -> AttemptSpec) -> String {
    let deployment = Deployment::start().await;
    let result = deployment.execute(&spec(&deployment)).await.result;
    let StepOutcome::Failed { failure: Failure::Exec { message } } = result else {
        panic!("it was executed: {result:?}")
    };
    message
}

fn file(deployment: &Deployment, name: &str, content: &str, mode: u32) -> String {
    let path = deployment.scratch(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_cannot_be_executed_says_why() {
    assert_eq!(exec_failure(|d| d.program(&["bin/no-such"])).await, "bin/no-such: does not exist (ENOENT)");
    assert_eq!(
        exec_failure(|d| d.program(&["no-such-program"])).await,
        "no-such-program: does not exist (ENOENT)"
    );
    let user = |d: &Deployment| AttemptSpec { user: Some("no-such-user".to_owned()), ..d.shell("true") };
    assert_eq!(exec_failure(user).await, "no such user: no-such-user");
    let cwd = |d: &Deployment| AttemptSpec { cwd: "/no/such/place".into(), ..d.shell("true") };
    assert_eq!(exec_failure(cwd).await, "working directory /no/such/place: does not exist (ENOENT)");
    let denied = exec_failure(|d| {
        file(d, "plain", "#!/bin/sh\n", 0o644);
        d.program(&["./plain"])
    });
    assert_eq!(denied.await, "./plain: permission denied (EACCES)");
    let no_format = exec_failure(|d| {
        file(d, "text", "echo this is no program\n", 0o755);
        d.program(&["./text"])
    });
    assert_eq!(no_format.await, "./text: neither a binary for this machine nor a script with #! (ENOEXEC)");
    let interpreter = exec_failure(|d| {
        file(d, "script", "#!/no/such/interpreter\n", 0o755);
        d.program(&["./script"])
    });
    assert_eq!(interpreter.await, "./script: its interpreter does not exist (ENOENT)");
}

#[tokio::test]
async fn a_program_finds_a_clean_environment() {
    let deployment = Deployment::start().await;
    let script = "umask; readlink /proc/self/fd/0; ls /proc/self/fd | tr '\\n' ' '; \
                  grep -E 'Sig(Blk|Ign)' /proc/self/status; env | cut -d= -f1 | sort | tr '\\n' ' '";
    let mut spec = deployment.shell(script);
    spec.env.insert("CONSIGN_APP".to_owned(), "shop".to_owned());
    assert_eq!(deployment.execute(&spec).await.result, StepOutcome::Succeeded);
    let said = deployment.said(spec.attempt, Stream::Stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "0022");
    assert_eq!(lines[1], "/dev/null");
    assert!(
        lines[2].starts_with("0 1 2 3 SigBlk:\t0000000000000000"),
        "3 is the directory that ls reads: {said}"
    );
    let ignored = u64::from_str_radix(lines[3].trim_start_matches("SigIgn:\t"), 16).unwrap();
    let of_the_c_library = 1 << 31 | 1 << 32;
    assert_eq!(ignored & !of_the_c_library, 0, "{said}");
    let expected = "CONSIGN_APP CONSIGN_ATTEMPT HOME LOGNAME PATH PWD SHELL USER ";
    assert_eq!(lines[4].replace("_ ", ""), expected);
}

#[tokio::test]
async fn another_user_has_that_users_groups_and_nothing_of_root() {
    assert!(rustix::process::geteuid().is_root(), "this test must run as root: it becomes nobody");
    let deployment = Deployment::start().await;
    std::fs::set_permissions(deployment.scratch(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script =
        "id -un; id -G; grep -E '^(Uid|Gid|CapEff|CapPrm)' /proc/self/status; echo $USER $CONSIGN_ATTEMPT";
    let spec = AttemptSpec { user: Some("nobody".to_owned()), ..deployment.shell(script) };
    assert_eq!(deployment.execute(&spec).await.result, StepOutcome::Succeeded);
    let said = deployment.said(spec.attempt, Stream::Stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["nobody", "65534"]);
    assert_eq!(lines[2], "Uid:\t65534\t65534\t65534\t65534");
    assert_eq!(lines[3], "Gid:\t65534\t65534\t65534\t65534");
    assert!(lines[4].ends_with("\t0000000000000000") && lines[5].ends_with("\t0000000000000000"), "{said}");
    assert!(lines[6].starts_with("nobody ") && lines[6].ends_with("/deploy-0-1"), "{said}");
}

#[tokio::test]
async fn another_users_step_reaches_neither_the_supervisor_nor_its_files() {
    assert!(rustix::process::geteuid().is_root(), "this test must run as root: it becomes nobody");
    let deployment = Deployment::start().await;
    std::fs::set_permissions(deployment.scratch(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    // As the agent makes it.
    std::fs::set_permissions(&deployment.directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut spec = AttemptSpec { user: Some("nobody".to_owned()), ..deployment.shell("true") };
    let directory = deployment.directory.display().to_string();
    // Its parent is the supervisor. What succeeds is said.
    let script = format!(
        "kill -9 $PPID && echo killed; cat /proc/$PPID/environ >/dev/null && echo environ; \
         ls {directory} && echo listed; for f in supervisor.sock {attempt}.exit {attempt}.log; do \
         echo x >> {directory}/$f && echo wrote $f; cat {directory}/$f && echo read $f; done; \
         ls /proc/self/fd | wc -l",
        attempt = spec.attempt,
    );
    spec.argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
    assert_eq!(deployment.execute(&spec).await.result, StepOutcome::Succeeded);
    // Only 0, 1, 2 and the directory that is listed were open.
    assert_eq!(deployment.said(spec.attempt, Stream::Stdout).trim(), "4");
}

#[tokio::test]
async fn another_users_processes_are_killed_too() {
    assert!(rustix::process::geteuid().is_root(), "this test must run as root: it becomes nobody");
    let deployment = Deployment::start().await;
    std::fs::set_permissions(deployment.scratch(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = "setsid sleep 600 & echo $!; sleep 600";
    let mut spec = AttemptSpec { user: Some("nobody".to_owned()), ..deployment.shell(script) };
    (spec.timeout_ms, spec.grace_ms) = (500, 100);
    deployment.execute(&spec).await;
    let child = deployment.said(spec.attempt, Stream::Stdout).trim().parse().unwrap();
    assert!(!crate::harness::is_alive(child));
}

#[tokio::test]
async fn tty_gives_a_terminal_and_unchanged_bytes() {
    let deployment = Deployment::start().await;
    let script = "test -t 1 && test -t 2 && echo terminal; tty <&1; echo to stderr >&2; test -e /dev/tty && : </dev/tty && echo own";
    let spec = AttemptSpec { tty: true, ..deployment.shell(script) };
    assert_eq!(deployment.execute(&spec).await.result, StepOutcome::Succeeded);
    let said = deployment.said(spec.attempt, Stream::Stdout);
    assert!(said.starts_with("terminal\n/dev/pts/"), "{said:?}");
    assert!(said.ends_with("to stderr\nown\n"), "{said:?}");
    let deployment = Deployment::start().await;
    assert_eq!(
        deployment.outcome("test -t 1 || test -t 2").await,
        StepOutcome::Failed { failure: Failure::Exit { code: 1 } }
    );
}
