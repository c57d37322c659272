//! The reference deployment in three acts: a first one, an upgrade, and one that fails after `activate` and returns. Each
//! has steps with effects, a skipped one, one that is tried again, and one whose failure is tolerated.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::{
    patient::Output,
    scene::{ACTIVATE, Scene},
};

pub(super) struct Act {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// How its rollout ends, and what `current` is then.
    state: &'static str,
    current: &'static str,
    /// And before.
    before: Option<&'static str>,
}

pub(super) const ACTS: [Act; 3] = [
    Act { name: "first", version: "1.0.0", state: "succeeded", current: "1.0.0", before: None },
    Act { name: "upgrade", version: "2.0.0", state: "succeeded", current: "2.0.0", before: Some("1.0.0") },
    Act { name: "return", version: "3.0.0", state: "returned", current: "2.0.0", before: Some("2.0.0") },
];

/// The one step that may run more than once.
const RETRIED: &str = "again";

/// Every line of the file `effects` names the attempt that wrote it.
fn plan(version: &str) -> String {
    let effect = |step: &str| format!("echo \"$CONSIGN_ATTEMPT {step}\" >> ../../effects");
    let last = if version == "3.0.0" { "exit 1" } else { "true" };
    let (one, elsewhere, again) = (effect("one"), effect("elsewhere"), effect(RETRIED));
    let (tolerated, end) = (effect("tolerated"), effect("last"));
    format!(
        r#"
[[step]]
name = "one"
shell = """{one}
for line in 1 2 3; do echo "line $line of $CONSIGN_VERSION"; echo "error $line" >&2; done"""

[[step]]
name = "elsewhere"
shell = """{elsewhere}"""
when = "environment == 'production'"

[[step]]
name = "again"
retry = {{ attempts = 4 }}
shell = """{again}
[ -e ../../once-$CONSIGN_VERSION ] || {{ touch ../../once-$CONSIGN_VERSION; echo "not yet"; exit 1; }}
echo now"""

[[step]]
name = "tolerated"
if_fails = "continue"
shell = """{tolerated}
echo "cannot"; exit 3"""
{ACTIVATE}
[[step]]
name = "last"
shell = """{end}
echo "the last of $CONSIGN_VERSION"; {last}"""
"#
    )
}

pub(super) fn publish(scene: &Scene) {
    for act in &ACTS {
        let version = act.version;
        scene.publish(version, &plan(version), &[("payload/one", version), ("payload/deep/two", version)]);
    }
}

/// What is to be seen of one act when it is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) state: String,
    /// By phase and name: the state, and the attempts.
    pub(super) steps: BTreeMap<(String, String), (String, u64)>,
    /// By attempt: the step that had the effect, once for every time.
    pub(super) effects: BTreeMap<String, Vec<String>>,
    /// By attempt and stream, as the coordinator has it.
    pub(super) output: BTreeMap<(String, String), String>,
    pub(super) current: Option<String>,
}

impl Outcome {
    /// From what the operator's commands printed, and what lies on the server.
    pub(super) fn read(scene: &Scene, shown: &Value, output: Output) -> Result<Self, String> {
        let deployment = &shown["deployments"][0];
        let mut outcome = Self { state: text(&shown["state"]), current: current(scene)?, ..Self::default() };
        for step in deployment["steps"].as_array().into_iter().flatten() {
            let key = (text(&step["phase"]), text(&step["name"]));
            // `activate` does no harm twice, and an agent that was killed in it does it again.
            let attempts = if key.1 == "activate" { 0 } else { step["attempts"].as_u64().unwrap_or(0) };
            let told = (text(&step["state"]), attempts);
            outcome.steps.insert(key, told);
        }
        let prefix = format!("{}/", text(&deployment["id"]));
        let effects = fs::read_to_string(scene.agents[0].apps().join("app/effects")).unwrap_or_default();
        for line in effects.lines().filter_map(|line| line.strip_prefix(&prefix)) {
            let (attempt, step) =
                line.split_once(' ').ok_or_else(|| format!("an effect in part: {line:?}"))?;
            outcome.effects.entry(attempt.into()).or_default().push(step.into());
        }
        for ((_, step, attempt, stream), text) in output {
            // What the agent itself says of an attempt in its own process may come twice; a step's output may not.
            if step != "activate" {
                outcome.output.insert((attempt, stream), text);
            }
        }
        Ok(outcome)
    }

    /// Without this nothing that follows would mean anything.
    pub(super) fn assert_reference(&self, act: &Act) {
        let step = |phase: &str, name: &str| {
            let key = (phase.to_owned(), name.to_owned());
            self.steps.get(&key).map(|(state, attempts)| (state.as_str(), *attempts))
        };
        assert_eq!(
            (self.state.as_str(), self.current.as_deref()),
            (act.state, Some(act.current)),
            "{self:#?}"
        );
        assert_eq!(step("deploy", "one"), Some(("succeeded", 1)), "{self:#?}");
        assert_eq!(step("deploy", RETRIED), Some(("succeeded", 2)), "{self:#?}");
        assert_eq!(step("deploy", "tolerated"), Some(("failed", 1)), "{self:#?}");
        assert_eq!(step("deploy", "elsewhere").map(|(state, _)| state), Some("skipped"), "{self:#?}");
        let last = if act.state == "returned" { "failed" } else { "succeeded" };
        assert_eq!(step("deploy", "last"), Some((last, 1)), "{self:#?}");
        assert!(self.output.len() >= 5, "{self:#?}");
    }

    /// What holds however it ended.
    pub(super) fn check_alone(&self, act: &Act) -> Result<(), String> {
        let mut ran: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (attempt, effects) in &self.effects {
            let phase = attempt.split('-').next().unwrap_or_default();
            for step in effects {
                *ran.entry((phase, step)).or_default() += 1;
            }
            if effects.len() > 1 {
                return Err(format!("attempt {attempt} had its effect {} times", effects.len()));
            }
        }
        for ((phase, step), times) in &ran {
            if *times > 1 && *step != RETRIED {
                return Err(format!("{step} may run once, and ran {times} times in phase {phase}"));
            }
        }
        for ((phase, step), (state, _)) in &self.steps {
            let times = ran.get(&(phase.as_str(), step.as_str())).copied().unwrap_or(0);
            match state.as_str() {
                "succeeded" if times == 0 && step != "activate" => {
                    return Err(format!("{step} is reported succeeded, and had no effect"));
                }
                "skipped" if times > 0 => return Err(format!("{step} is reported skipped, and ran")),
                _ => {}
            }
        }
        let allowed = [act.before, Some(act.version)];
        if !allowed.contains(&self.current.as_deref()) {
            return Err(format!("current is {:?}", self.current));
        }
        Ok(())
    }

    /// A supervisor was killed: what it executed may be unknown, and what can be tried again was. All else is as ever.
    pub(super) fn check_unknown(&self, without: &Self) -> Result<(), String> {
        let unknown = self.steps.values().any(|(state, _)| state == "unknown");
        if self.state != without.state && !(self.state == "unknown" && unknown) {
            return Err(format!(
                "ended as {}, and not {} or unknown for a step's sake",
                self.state, without.state
            ));
        }
        for (key, (state, _)) in &self.steps {
            let expected = without.steps.get(key).map_or("pending", |(state, _)| state.as_str());
            let is_open = ["unknown", "pending", "cancelled"].contains(&state.as_str());
            if state != expected && !(is_open && self.state == "unknown") {
                return Err(format!("{key:?} is {state}, and not {expected}"));
            }
        }
        // An attempt that is known to have ended left all of its output; of one that is not, as far as it came.
        for (key, expected) in without.output.iter().filter(|((attempt, _), _)| !is_of_retried(attempt)) {
            let found = self.output.get(key).map_or("", String::as_str);
            if found != expected && (self.state != "unknown" || !expected.starts_with(found)) {
                return Err(format!("the output of {key:?} is {found:?}, and not {expected:?}"));
            }
        }
        // What was unknown is tried again; the attempt that counts is the last one.
        let last =
            self.output.iter().rfind(|((attempt, stream), _)| is_of_retried(attempt) && stream == "stdout");
        let state =
            self.steps.get(&("deploy".to_owned(), RETRIED.to_owned())).map(|(state, _)| state.as_str());
        if state == Some("succeeded") && last.is_none_or(|(_, text)| text != "now\n") {
            return Err(format!("{RETRIED} succeeded, and the output of its last attempt is {last:?}"));
        }
        Ok(())
    }
}

fn is_of_retried(attempt: &str) -> bool {
    attempt.split('-').nth(1) == Some("2")
}

/// The version that `current` leads to, all of which must be there.
pub(super) fn current(scene: &Scene) -> Result<Option<String>, String> {
    let link = scene.agents[0].apps().join("app/current");
    let Ok(target) = fs::read_link(&link) else { return Ok(None) };
    let read = |file: &str| {
        fs::read_to_string(link.join(file))
            .map_err(|error| format!("current → {}: {file}: {error}", target.display()))
    };
    let (one, two) = (read("payload/one")?, read("payload/deep/two")?);
    if one != two || !target.to_string_lossy().contains(&one) {
        return Err(format!("current → {} holds {one:?} and {two:?}", target.display()));
    }
    Ok(Some(one))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
