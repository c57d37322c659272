//! Crashes at the worst moment, and what is legal and too large.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use consign_agent::{
    core::Begun,
    executor::{Created, Exit, Processes, Rejoined, Supervised},
    supervisor::AttemptSpec,
};
use consign_common::{
    deployment::{Attempt, Event},
    trust::OrderKind,
};

use crate::{
    WAITS, succeeded,
    world::{World, supervised},
};

/// A state directory of its own small filesystem.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs"]).arg(&at).output();
        let mounted = mounted.expect("this test needs the program mount");
        assert!(mounted.status.success(), "this test must be able to mount a tmpfs: {mounted:?}");
        Self(at)
    }

    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.join("ballast")).unwrap();
        let full = std::iter::repeat_with(|| ballast.write_all(&[1; 512])).find_map(Result::err);
        assert_eq!(full.map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test]
async fn on_a_full_disk_work_is_refused_before_it_begins_and_the_agent_survives() {
    let world = World::new();
    let disk = SmallDisk::mount(world.path("state"));
    let mut agent = world.start().await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    let artifact = world.publish("1.0.0", &[("index", "one")], WAITS);
    disk.fill();
    agent.give(world.deploy(&artifact)).await;
    assert_eq!(agent.refusal().await.0, "disk-full");
    // More refusals than would fit are all answered.
    for _ in 0..40 {
        let reason = "x".repeat(60_000);
        let mut order = world.order(OrderKind::back(artifact.digest, reason));
        order.server = "web-2".parse().unwrap();
        agent.give(world.send(&order, &artifact)).await;
        assert_eq!(agent.refusal().await.0, "wrong-server");
    }
    assert!(world.effects().is_empty() && !world.path("apps/shop/releases").exists());
    fs::remove_file(disk.0.join("ballast")).unwrap();
    agent.give(world.deploy(&artifact)).await;
    assert_eq!(agent.outcome().await, succeeded(), "once there is space");
    agent.kill().await;
    drop(disk);
}

/// An agent that dies between the journalled `spawned` and the release.
#[derive(Debug)]
struct NeverReleases(Supervised);

impl Processes for NeverReleases {
    async fn create(&self, directory: &Path, spec: &AttemptSpec) -> Result<Created, String> {
        self.0.create(directory, spec).await
    }

    async fn run(&self, _: &Path, _: &Begun) -> Exit {
        std::future::pending().await
    }

    async fn rejoin(&self, directory: &Path, begun: &Begun, spec: &AttemptSpec) -> Rejoined {
        self.0.rejoin(directory, begun, spec).await
    }

    async fn cancel(&self, directory: &Path, attempt: Attempt) {
        self.0.cancel(directory, attempt).await;
    }

    async fn shut_down(&self, directory: &Path) {
        self.0.shut_down(directory).await;
    }
}

#[tokio::test]
async fn killed_between_spawned_and_release_the_step_runs_once() {
    let world = World::new();
    let boot = consign_agent::supervisor::boot_id().unwrap();
    let mut agent = world.start_as(NeverReleases(supervised()), &boot).await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    agent.give(world.deploy(&world.publish("1.0.0", &[("index", "one")], WAITS))).await;
    while !matches!(
        agent.hear().await,
        consign_agent::ports::Outbound::Event { body: Event::Spawned { .. }, .. }
    ) {}
    agent.kill().await;
    assert!(world.effects().is_empty(), "nothing executes before its release");
    let mut agent = world.start().await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(world.effects(), ["begin", "end"]);
    agent.kill().await;
}

#[tokio::test]
async fn an_outcome_on_disk_counts_also_after_a_reboot() {
    let world = World::new();
    let agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], WAITS);
    let order = world.order(OrderKind::deploy(artifact.digest, false));
    agent.give(world.send(&order, &artifact)).await;
    world.effect("begin").await;
    agent.kill().await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    world.exited(&order.deployment, "deploy-0-1").await;
    world.kill_supervisor(&order.deployment);
    let mut agent = world.start_as(supervised(), "11111111-2222-3333-4444-555555555555").await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(world.effects(), ["begin", "end"]);
    agent.kill().await;
}

#[tokio::test]
async fn a_skip_whose_inputs_are_larger_than_an_event_ends_no_agent() {
    let world = World::new();
    let mut agent = world.start().await;
    let motto = "\"".repeat(60_000);
    let (mut plan, mut condition) = (String::new(), "false".to_owned());
    for index in 0..3 {
        plan += &format!("[params.p{index}]\ntype = \"string\"\nmax_length = 65536\ndefault = '{motto}'\n");
        condition += &format!(" || params.p{index} == 'x'");
    }
    plan += &format!("[[step]]\nname = \"say\"\nshell = \"echo said >> @effects\"\nwhen = \"{condition}\"\n");
    plan += "[[step]]\nname = \"on\"\nactivate = true\n";
    agent.give(world.deploy(&world.publish("1.0.0", &[("index", "one")], &plan))).await;
    let events = agent.events().await;
    assert!(
        matches!(events.last(), Some(Event::Ended { result }) if *result == succeeded()),
        "{:?}",
        events.last()
    );
    assert!(events.iter().any(|event| matches!(event, Event::Skipped { step: 0, .. })));
    assert!(world.effects().is_empty());
    agent.kill().await;
}
