//! A coordinator and agents as processes, and artifacts that are only a plan.

use std::{fs, path::PathBuf};

use consign_tests::scene::{Agent, Coordinator, Operator, Ran, write_tree};

#[derive(Debug)]
pub(crate) struct Scene {
    // Dropped in this order: agents before the coordinator, the directory last.
    pub(crate) agents: Vec<Agent>,
    pub(crate) coordinator: Coordinator,
    pub(crate) operator: Operator,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) const ACTIVATE: &str = "\n[[step]]\nname = \"activate\"\nactivate = true\n";

impl Scene {
    pub(crate) fn start(names: &[&str]) -> Self {
        let mut scene = Self::without_agents(&["app"], &["staging"]);
        for name in names {
            scene.enrol(name, "staging", &["--allow-app", "app", "--allow-user", "root"]);
        }
        scene
    }

    /// An operator and a coordinator whose trust root names these.
    pub(crate) fn without_agents(apps: &[&str], environments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut operator = Operator::init(&directory.path().join("operator"), apps, environments);
        let coordinator = Coordinator::start(directory.path(), &mut operator, "127.0.0.1");
        Self { agents: Vec::new(), coordinator, operator, directory }
    }

    /// One more server; `word` is what its root allows, as options of `consign-agent enroll`.
    pub(crate) fn enrol(&mut self, name: &str, environment: &str, word: &[&str]) {
        let agent = Agent::start(self.directory.path(), &self.operator, name, environment, word);
        self.agents.push(agent);
    }

    /// The source of a version of `app` with these steps (TOML) and files.
    pub(crate) fn source(&self, app: &str, version: &str, steps: &str, files: &[(&str, &str)]) -> PathBuf {
        let source = self.directory.path().join("sources").join(app).join(version);
        fs::create_dir_all(&source).unwrap();
        write_tree(&source, files);
        write_tree(&source, &[("consign.toml", &format!("app = \"{app}\"\n{steps}"))]);
        source
    }

    /// Publishes a version of `app` with these steps (TOML) and files.
    pub(crate) fn publish(&self, version: &str, steps: &str, files: &[(&str, &str)]) {
        let source = self.source("app", version, steps, files);
        self.operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", version]);
    }

    /// Publishes a version whose step says `first`, waits until the file that is given back exists, and says `second`.
    pub(crate) fn publish_waiting(&self, version: &str) -> PathBuf {
        let gate = self.directory.path().join("gate");
        let step = format!(
            "[[step]]\nname = \"talk\"\nshell = \"echo first; until [ -e {} ]; do sleep 0.05; done; echo second\"\n{ACTIVATE}",
            gate.display()
        );
        self.publish(version, &step, &[]);
        gate
    }

    pub(crate) fn roll_out(&self, version: &str) -> Ran {
        self.operator.run(&["rollout", "start", &format!("app@{version}"), "--env", "staging", "--follow"])
    }
}
