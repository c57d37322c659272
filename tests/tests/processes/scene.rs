//! A coordinator and agents as processes, and artifacts that are only a plan.

use std::fs;

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
        let directory = tempfile::tempdir().unwrap();
        let mut operator = Operator::init(&directory.path().join("operator"), &["app"], &["staging"]);
        let coordinator = Coordinator::start(directory.path(), &mut operator, "127.0.0.1");
        let word = ["--allow-app", "app", "--allow-user", "root"];
        let agents = names
            .iter()
            .map(|name| Agent::start(directory.path(), &operator, name, "staging", &word))
            .collect();
        Self { agents, coordinator, operator, directory }
    }

    /// Publishes a version of `app` with these steps (TOML) and files.
    pub(crate) fn publish(&self, version: &str, steps: &str, files: &[(&str, &str)]) {
        let source = self.directory.path().join("sources").join(version);
        fs::create_dir_all(&source).unwrap();
        write_tree(&source, files);
        write_tree(&source, &[("consign.toml", &format!("app = \"app\"\n{steps}"))]);
        self.operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", version]);
    }

    pub(crate) fn roll_out(&self, version: &str) -> Ran {
        self.operator.run(&["rollout", "start", &format!("app@{version}"), "--env", "staging", "--follow"])
    }
}
