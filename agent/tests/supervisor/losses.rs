//! Who dies, and what is known afterwards.

use std::io::{Read, Write};

use consign_agent::supervisor::{
    AttemptSpec, ExitRecord, Launcher, Run, Supervisor, SupervisorError, reap_lost,
};
use consign_common::deployment::{StepOutcome, log::Stream};

use crate::harness::{Deployment, PATIENCE, is_alive, kill, launcher, marked, number_in, pid, until};

#[tokio::test]
async fn a_client_that_is_gone_finds_the_outcome_when_it_comes_back() {
    let deployment = Deployment::start().await;
    let go_on = deployment.scratch("go-on");
    let spec = deployment
        .shell(&format!("echo a; while [ ! -e {} ]; do sleep 0.01; done; echo b; exit 7", go_on.display()));
    deployment.begin(&spec).await;
    let waiting = tokio::spawn({
        let supervisor = deployment.supervisor.clone();
        async move { supervisor.wait(spec.attempt).await }
    });
    until("it has begun", || deployment.said(spec.attempt, Stream::Stdout) == "a\n").await;
    waiting.abort();
    std::fs::write(&go_on, "").unwrap();
    let again = Supervisor::attach(&deployment.directory).await.unwrap().expect("it runs");
    let record = again.wait(spec.attempt).await.unwrap();
    assert_eq!(record.result.to_string(), "failed: exit code 7");
    assert_eq!(deployment.said(spec.attempt, Stream::Stdout), "a\nb\n");
}

#[tokio::test]
async fn an_attempt_outlives_the_agent_that_began_it() {
    let deployment = Deployment::start().await;
    deployment.supervisor.shut_down().await.unwrap();
    until("its socket is gone", || !deployment.directory.join("supervisor.sock").exists()).await;
    let go_on = deployment.scratch("go-on");
    let spec =
        deployment.shell(&format!("echo a; while [ ! -e {} ]; do sleep 0.01; done; echo b", go_on.display()));
    let document = deployment.scratch("spec");
    std::fs::write(&document, serde_json::to_vec(&spec).unwrap()).unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_consign-agent"));
    let mut agent = std::process::Command::new(program.with_file_name("examples").join("begin-attempt"))
        .args([deployment.directory.as_path(), &document, program])
        .spawn()
        .unwrap();
    let log = deployment.directory.join(format!("{}.log", spec.attempt));
    until("it has begun", || log.exists() && deployment.said(spec.attempt, Stream::Stdout) == "a\n").await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    std::fs::write(&go_on, "").unwrap();
    let again = Supervisor::attach(&deployment.directory).await.unwrap().expect("it outlives the agent");
    assert_eq!(again.wait(spec.attempt).await.unwrap().result, StepOutcome::Succeeded);
    assert_eq!(deployment.said(spec.attempt, Stream::Stdout), "a\nb\n");
}

#[tokio::test]
async fn out_of_its_cgroup_nothing_gets_away() {
    let deployment = Deployment::start().await;
    let file = deployment.scratch("daemon");
    let script = format!("setsid env -i sh -c 'echo $$ > {}; exec sleep 600' & sleep 600", file.display());
    let spec = deployment.shell(&script);
    let identity = deployment.begin(&spec).await;
    let daemon = number_in(&file).await;
    kill(deployment.supervisor_pid(&identity));
    if identity.process.as_ref().unwrap().cgroup.is_some() {
        reap_lost(identity).await.unwrap();
        assert!(!is_alive(daemon));
    } else {
        // The two machines where an attempt has none, by design: systemd owns the tree, or it may not be written.
        let is_systemds = std::path::Path::new("/run/systemd/system").exists();
        kill(daemon);
        assert!(is_systemds || !rustix::process::geteuid().is_root(), "root without systemd makes a cgroup");
    }
}

#[tokio::test]
async fn a_request_that_is_not_understood_is_answered() {
    let deployment = Deployment::start().await;
    let long_way_round = std::fs::File::open(&deployment.directory).unwrap();
    let address =
        format!("/proc/self/fd/{}/supervisor.sock", std::os::fd::AsRawFd::as_raw_fd(&long_way_round));
    for bad in ["{\"do\":\"dance\"}\n", "{\"do\":\"shut-down\",\"more\":1}\n", "nonsense\n"] {
        let mut stream = std::os::unix::net::UnixStream::connect(&address).unwrap();
        stream.write_all(bad.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("not understood"), "{answer}");
    }
}

#[tokio::test]
async fn a_lost_supervisor_is_noticed_and_nothing_of_its_attempt_is_left() {
    let deployment = Deployment::start().await;
    let child = deployment.scratch("child");
    let script = format!("setsid sh -c 'echo $$ > {}; exec sleep 600' & exec sleep 600", child.display());
    let spec = deployment.shell(&script);
    let identity = deployment.begin(&spec).await;
    let child = number_in(&child).await;
    let waiting = tokio::spawn({
        let supervisor = deployment.supervisor.clone();
        async move { supervisor.wait(spec.attempt).await }
    });
    kill(deployment.supervisor_pid(&identity));
    let lost = waiting.await.unwrap();
    assert!(matches!(lost, Err(SupervisorError::Lost { .. })), "{lost:?}");
    assert!(Supervisor::attach(&deployment.directory).await.unwrap().is_none());
    assert!(is_alive(pid(&identity)) && is_alive(child), "losing a supervisor does not end a step by itself");
    reap_lost(identity.clone()).await.unwrap();
    assert!(!is_alive(pid(&identity)) && !is_alive(child));
    assert_eq!(marked(&deployment.directory), Vec::<u32>::new());
    assert!(ExitRecord::read(&deployment.directory, spec.attempt).unwrap().is_none());
    let next = Supervisor::start(&deployment.directory, &launcher()).await.unwrap();
    let refused = next.run(&spec).await;
    assert!(matches!(refused, Err(SupervisorError::Refused { .. })), "never twice: {refused:?}");
}

#[tokio::test]
async fn without_a_cgroup_the_mark_in_the_environment_is_enough() {
    let deployment = Deployment::start().await;
    let spec = deployment.shell("setsid sleep 600 & sleep 600");
    let mut identity = deployment.begin(&spec).await;
    until("three processes", || marked(&deployment.directory).len() == 3).await;
    kill(deployment.supervisor_pid(&identity));
    identity.process = None;
    reap_lost(identity).await.unwrap();
    assert_eq!(marked(&deployment.directory), Vec::<u32>::new());
}

#[tokio::test]
async fn a_supervisor_that_dies_before_the_release_takes_the_process_along() {
    let deployment = Deployment::start().await;
    let trace = deployment.scratch("trace");
    let spec = deployment.shell(&format!("echo 1 > {}", trace.display()));
    let Run::Spawned(identity) = deployment.supervisor.run(&spec).await.unwrap() else { panic!() };
    kill(deployment.supervisor_pid(&identity));
    until("the process is gone", || !is_alive(pid(&identity))).await;
    assert!(!trace.exists());
}

#[tokio::test]
async fn an_outcome_on_disk_is_believed_when_its_supervisor_is_dead() {
    let deployment = Deployment::start().await;
    let spec = deployment.shell("sleep 0.3");
    let identity = deployment.begin(&spec).await;
    let supervisor = deployment.supervisor_pid(&identity);
    deployment.end(spec.attempt).await;
    kill(supervisor);
    until("the supervisor is dead", || !is_alive(supervisor)).await;
    assert_eq!(deployment.supervisor.wait(spec.attempt).await.unwrap().result, StepOutcome::Succeeded);
}

#[tokio::test]
async fn another_boots_processes_are_not_looked_for() {
    let deployment = Deployment::start().await;
    let spec = deployment.shell("sleep 600");
    let mut identity = deployment.begin(&spec).await;
    identity.boot_id = "00000000-0000-0000-0000-000000000000".to_owned();
    reap_lost(identity.clone()).await.unwrap();
    assert!(is_alive(pid(&identity)));
}

#[tokio::test]
async fn one_supervisor_serves_a_deployment_however_often_it_is_started() {
    let deployment = Deployment::start().await;
    let spec = deployment.shell("sleep 600");
    let identity = deployment.begin(&spec).await;
    let again = Supervisor::start(&deployment.directory, &launcher()).await.unwrap();
    assert_eq!(again.run(&spec).await.unwrap(), Run::Spawned(identity));
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_consign-agent"))
        .args(["supervise", "--dir"])
        .arg(&deployment.directory)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&status.stderr).contains("another supervisor runs"), "{status:?}");
}

#[tokio::test]
async fn a_supervisor_that_dies_before_it_listens_is_followed_by_another() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("0123456789abcdef0123456789abcdef");
    std::fs::create_dir(&directory).unwrap();
    let (once, program) = (root.path().join("once"), root.path().join("program"));
    let script = format!(
        "#!/bin/sh\n[ -e {once} ] || {{ touch {once}; exit 0; }}\nexec {agent} \"$@\"\n",
        once = once.display(),
        agent = env!("CARGO_BIN_EXE_consign-agent")
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let began = std::time::Instant::now();
    let supervisor = Supervisor::start(&directory, &Launcher::Session { program }).await.unwrap();
    assert!(once.exists() && began.elapsed() < PATIENCE / 2, "long before it is given up");
    supervisor.shut_down().await.unwrap();
}

/// Where a process that dies listens longer than it talks, whoever asks it takes it neither for alive nor for broken.
#[tokio::test]
async fn a_conversation_that_breaks_off_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(directory.path().join("supervisor.sock")).unwrap();
    let supervisor = Supervisor::attach(directory.path()).await.unwrap().expect("somebody listens");
    let attempt = "deploy-0-1".parse().unwrap();
    let dying = std::thread::spawn(move || {
        // Who attached, then twice who asked and who looked whether anybody listens.
        for _ in 0..5 {
            drop(listener.accept().unwrap());
        }
    });
    let asked = supervisor.release(attempt).await;
    assert!(matches!(asked, Err(SupervisorError::Lost { .. })), "{asked:?}");
    dying.join().unwrap();
}

/// As an agent does that was killed meanwhile: it reads the record, and comes with the next attempt at once.
#[tokio::test]
async fn an_attempt_whose_end_is_on_disk_is_in_nobodys_way() {
    let deployment = Deployment::start().await;
    for number in 1..=10 {
        let attempt = format!("deploy-0-{number}").parse().unwrap();
        let spec = AttemptSpec { attempt, ..deployment.shell("true") };
        deployment.begin(&spec).await;
        while ExitRecord::read(&deployment.directory, attempt).unwrap().is_none() {}
    }
    deployment.supervisor.shut_down().await.unwrap();
}
