//! Where acts are played: a coordinator and an agent whose directories are put back to what they were before the act.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::reference::{ACTS, Outcome, current, publish};
use crate::{patient, scene::Scene};

/// From the start of a rollout to its end, with one kill in between.
const LONGEST: Duration = Duration::from_secs(60);
/// Without a further point for this long an act is over.
const QUIET: Duration = Duration::from_millis(700);
const ASK_EVERY: Duration = Duration::from_millis(100);
/// For output that is still on its way.
const REST: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victim {
    Agent,
    Supervisor,
    Coordinator,
}

impl Victim {
    pub(super) const ALL: [Self; 3] = [Self::Agent, Self::Supervisor, Self::Coordinator];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Supervisor => "supervisor",
            Self::Coordinator => "coordinator",
        }
    }

    fn subcommand(self) -> &'static str {
        match self {
            Self::Agent => "run",
            Self::Supervisor => "supervise",
            Self::Coordinator => "serve",
        }
    }
}

/// What an act came to.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) outcome: Result<Outcome, String>,
    /// The points that each kind of process passed, in order.
    pub(super) points: BTreeMap<Victim, Vec<String>>,
}

pub(super) struct Stage {
    scene: Scene,
    /// Before each act: copies of what coordinator and agent keep.
    before: Vec<PathBuf>,
    /// Each act without a kill.
    pub(super) references: Vec<Played>,
}

impl Stage {
    pub(super) fn build() -> Self {
        let mut scene = Scene::start(&["web-1"]);
        publish(&scene);
        scene.agents[0].kill();
        scene.coordinator.kill();
        let mut stage = Self { scene, before: Vec::new(), references: Vec::new() };
        for (index, act) in ACTS.iter().enumerate() {
            let copy = stage.scene.directory.path().join("before").join(act.name);
            fs::create_dir_all(&copy).unwrap();
            for kept in stage.kept() {
                copy_tree(&kept, &copy.join(kept.file_name().unwrap()));
            }
            stage.before.push(copy);
            let played = stage.play(index, None);
            match &played.outcome {
                Ok(outcome) => outcome.assert_reference(act),
                Err(why) => panic!("{}: {why}", act.name),
            }
            stage.references.push(played);
        }
        stage
    }

    fn kept(&self) -> [PathBuf; 2] {
        [self.scene.coordinator.state().to_owned(), self.scene.agents[0].directory().to_owned()]
    }

    /// Plays an act from where it begins, and kills a process of this kind at its point of this number. Everything is
    /// ended afterwards.
    pub(super) fn play(&mut self, act: usize, kill: Option<(Victim, u64)>) -> Played {
        for kept in self.kept() {
            copy_tree(&self.before[act].join(kept.file_name().unwrap()), &kept);
        }
        let counted = self.scene.directory.path().join("points");
        drop(fs::remove_dir_all(&counted));
        fs::create_dir(&counted).unwrap();
        let mut run = Run { scene: &mut self.scene, counted: &counted, kill, seen_whole: Ok(()) };
        run.launch_coordinator();
        run.launch_agent();
        let outcome = run.act(act);
        let outcome = run.seen_whole.clone().and(outcome);
        self.end();
        let points = Victim::ALL.map(|victim| (victim, read_points(&counted, victim)));
        Played { outcome, points: points.into() }
    }

    fn end(&mut self) {
        self.scene.agents[0].kill();
        self.scene.coordinator.kill();
        for pid in self.scene.agents[0].supervisors() {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).output());
        }
    }

    /// The ends of both logs, for whoever looks into a failure.
    pub(super) fn logs(&self) -> String {
        let end = |log: String| log.get(log.len().saturating_sub(3000)..).unwrap_or(&log).to_owned();
        let (agent, coordinator) = (self.scene.agents[0].log(), self.scene.coordinator.log());
        format!("---- agent\n{}\n---- coordinator\n{}", end(agent), end(coordinator))
    }
}

/// One act that is being played.
struct Run<'a> {
    scene: &'a mut Scene,
    counted: &'a Path,
    kill: Option<(Victim, u64)>,
    /// Whether `current` was whole whenever a process lay dead.
    seen_whole: Result<(), String>,
}

impl Run<'_> {
    fn environment(&self, command: &mut Command) {
        let of = |victim: Victim| {
            format!("{}:{}", victim.subcommand(), points_file(self.counted, victim).display())
        };
        match self.kill {
            None => {
                command.env("CONSIGN_CRASH_COUNT", Victim::ALL.map(of).join(","));
            }
            Some((victim, number)) => {
                command.env("CONSIGN_CRASH_COUNT", of(victim)).env("CONSIGN_CRASH_AT", number.to_string());
            }
        }
    }

    fn launch_coordinator(&mut self) {
        let mut environment = Command::new("true");
        self.environment(&mut environment);
        self.scene.coordinator.launch_with(|command| inherit(command, &environment));
    }

    fn launch_agent(&mut self) {
        let mut environment = Command::new("true");
        self.environment(&mut environment);
        self.scene.agents[0].launch_with(|command| inherit(command, &environment));
    }

    /// Starts again what was killed.
    fn revive(&mut self) {
        let (agent, coordinator) = (self.scene.agents[0].is_gone(), self.scene.coordinator.is_gone());
        if !agent && !coordinator {
            return;
        }
        if self.seen_whole.is_ok() {
            self.seen_whole = current(self.scene).map(drop);
        }
        if agent {
            self.launch_agent();
        }
        if coordinator {
            self.launch_coordinator();
        }
    }

    fn act(&mut self, act: usize) -> Result<Outcome, String> {
        let version = ACTS[act].version;
        let id =
            self.until("the rollout starts", LONGEST, |run| patient::start(&run.scene.operator, version))?;
        self.until("the rollout ends", LONGEST, |run| patient::ended(&run.scene.operator, &id))?;
        self.until_quiet();
        let output =
            self.until("its output is there", REST, |run| patient::output(&run.scene.operator, &id))??;
        let shown =
            self.until("the rollout is shown", LONGEST, |run| patient::ended(&run.scene.operator, &id))?;
        Outcome::read(self.scene, &shown, output)
    }

    /// Until the kill has come, or no more points do.
    fn until_quiet(&mut self) {
        let passed = |run: &Self| Victim::ALL.map(|victim| lines(run.counted, victim));
        let (mut last, mut since) = (passed(self), Instant::now());
        while since.elapsed() < QUIET {
            let now = passed(self);
            if self.kill.is_some_and(|(victim, number)| lines(self.counted, victim) >= number) {
                break;
            }
            if now != last {
                (last, since) = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.revive();
    }

    /// Asks until there is an answer, and starts again what was killed meanwhile.
    fn until<T>(
        &mut self,
        what: &str,
        longest: Duration,
        mut ask: impl FnMut(&Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + longest;
        loop {
            self.revive();
            let why = match ask(self) {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            };
            if Instant::now() > deadline {
                return Err(format!("stuck: {what}: not within {longest:?}; last seen: {why}"));
            }
            // A question costs the processor more than all else here; a look whether somebody died costs nothing.
            let next = Instant::now() + ASK_EVERY;
            while Instant::now() < next {
                self.revive();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn inherit(command: &mut Command, environment: &Command) {
    command.envs(environment.get_envs().filter_map(|(key, value)| Some((key, value?))));
}

fn points_file(directory: &Path, victim: Victim) -> PathBuf {
    directory.join(victim.name())
}

fn read_points(directory: &Path, victim: Victim) -> Vec<String> {
    let text = fs::read_to_string(points_file(directory, victim)).unwrap_or_default();
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn lines(directory: &Path, victim: Victim) -> u64 {
    read_points(directory, victim).len() as u64
}

/// Puts a copy of a directory at this place.
fn copy_tree(from: &Path, to: &Path) {
    // Releases are read-only where the agent is not root.
    for command in [
        &mut Command::new("chmod").args(["-Rf", "u+w"]).arg(to),
        Command::new("rm").arg("-rf").arg(to),
        Command::new("cp").arg("-a").args([from, to]),
    ] {
        let status = command.status().unwrap();
        assert!(status.success() || command.get_program() == "chmod", "{command:?}: {status}");
    }
}
