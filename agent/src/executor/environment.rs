//! What a step's process finds in its environment: nothing but this.

use std::{collections::BTreeMap, path::Path};

use consign_common::{
    config::Values,
    name::{App, Environment, Id, ServerName, Version},
    plan::Step,
};

/// Fixed, so that no server's profile changes what a plan does.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where and for what a step runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) app: &'a App,
    pub(super) version: &'a Version,
    pub(super) release: &'a Path,
    /// The release that ran before, or on a return the one being left.
    pub(super) previous: Option<&'a Path>,
    pub(super) environment: &'a Environment,
    pub(super) server: &'a ServerName,
    pub(super) rollout: &'a Id,
}

/// `HOME`, `USER`, `LOGNAME`, `SHELL` and `CONSIGN_ATTEMPT` are the supervisor's to add. The plan's check sees to it
/// that neither parameters nor `env` name what stands here.
pub(super) fn variables(around: Surroundings<'_>, config: &Values, step: &Step) -> BTreeMap<String, String> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let own = [
        ("PATH", PATH.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("CONSIGN_APP", around.app.to_string()),
        ("CONSIGN_VERSION", around.version.to_string()),
        ("CONSIGN_RELEASE", path(around.release)),
        ("CONSIGN_PREVIOUS", around.previous.map(path).unwrap_or_default()),
        ("CONSIGN_ENVIRONMENT", around.environment.to_string()),
        ("CONSIGN_SERVER", around.server.to_string()),
        ("CONSIGN_ROLLOUT", around.rollout.to_string()),
    ];
    let params = config.plain().into_iter().map(|(name, text)| (name.as_str().to_ascii_uppercase(), text));
    let mut variables: BTreeMap<String, String> = params.chain(step.env.clone()).collect();
    variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
    variables
}

#[cfg(test)]
mod tests {
    use consign_common::{config::effective, plan::Plan};

    use super::*;

    #[test]
    fn a_step_sees_parameters_its_own_env_and_nothing_of_the_agents() {
        let text = "app = \"shop\"\n[params.workers]\ntype = \"int\"\ndefault = 4\n[[step]]\nname = \"a\"\n\
                    run = [\"true\"]\nenv = { RAILS_ENV = \"production\" }\n[[step]]\nname = \"b\"\nactivate = true\n";
        let plan = Plan::parse(text, "consign.toml").unwrap();
        let around = Surroundings {
            app: &plan.app,
            version: &"1.0".parse().unwrap(),
            release: Path::new("/srv/shop/releases/1.0-x"),
            previous: None,
            environment: &"production".parse().unwrap(),
            server: &"web-1".parse().unwrap(),
            rollout: &Id::from_bytes([1; 16]),
        };
        let variables = variables(around, &effective(&plan, None).unwrap(), &plan.steps[0]);
        assert_eq!(variables["WORKERS"], "4");
        assert_eq!(variables["RAILS_ENV"], "production");
        assert_eq!(variables["CONSIGN_RELEASE"], "/srv/shop/releases/1.0-x");
        assert_eq!(variables["CONSIGN_PREVIOUS"], "");
        assert_eq!(variables["PATH"], PATH);
        assert!(!variables.contains_key("CARGO"), "{variables:?}");
    }
}
