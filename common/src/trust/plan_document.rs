//! The plan document: what a preview said that servers will do, as an approval can name it (docs/formats.md, "Plan
//! document"). It is text, so that others can compute it.

use std::collections::BTreeMap;

use super::{Foreseen, Refusal};
use crate::{
    digest::Sha256,
    limits::PLAN_DOCUMENT_BYTES,
    name::{ServerName, StepName},
    plan::Plan,
};

const FORMAT: &str = "consign-plan-v1";
const NONE: &str = "none";
const NO_OP: &str = "no-op";

/// One artifact with one config on these servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanDocument {
    pub artifact: Sha256,
    /// The digest of the effective values, where a config statement gives them.
    pub config: Option<Sha256>,
    pub servers: BTreeMap<ServerName, Planned>,
}

/// What one server will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Nothing: it runs this already.
    NoOp,
    /// Every step of the plan in its order.
    Steps(Vec<(StepName, PlannedStep)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedStep {
    Run,
    Skip,
    /// It depends on what happens until then.
    Undetermined,
}

impl PlannedStep {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Skip => "skip",
            Self::Undetermined => "undetermined",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Run, Self::Skip, Self::Undetermined].into_iter().find(|step| step.as_str() == text)
    }
}

impl PlanDocument {
    /// Its one form.
    pub fn to_vec(&self) -> Vec<u8> {
        let config = self.config.map_or_else(|| NONE.to_owned(), |digest| digest.to_string());
        let mut text = format!("{FORMAT}\nartifact {}\nconfig {config}\n", self.artifact);
        for (server, planned) in &self.servers {
            match planned {
                Planned::NoOp => text.push_str(&format!("{server} {NO_OP}\n")),
                Planned::Steps(steps) => {
                    for (step, decision) in steps {
                        text.push_str(&format!("{server} {step} {}\n", decision.as_str()));
                    }
                }
            }
        }
        text.into_bytes()
    }

    /// What an approval names as `plan_sha256`.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.to_vec())
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |why: &str| Refusal::Malformed { what: "plan document", why: why.to_owned() };
        if bytes.len() > PLAN_DOCUMENT_BYTES {
            return Err(malformed(&format!(
                "{} bytes, at most {PLAN_DOCUMENT_BYTES} are allowed",
                bytes.len()
            )));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is no UTF-8"))?;
        let parsed = read(text).ok_or_else(|| malformed("it has lines that no plan document has"))?;
        // Servers out of order, twice or without a step, a line without an end: what differs when written is another.
        if parsed.to_vec() != bytes {
            return Err(malformed("it is not in its one form"));
        }
        Ok(parsed)
    }

    /// What binds this server: `None` where the document has no line of it. Refused where its steps are not the plan's.
    pub fn pinned(
        &self,
        server: &ServerName,
        plan: &Plan,
    ) -> Result<Option<BTreeMap<StepName, Foreseen>>, Refusal> {
        let all = || plan.steps.iter().map(|step| &step.name);
        match self.servers.get(server) {
            None => Ok(None),
            // Doing nothing is what was shown: if there is anything to do after all, that is something else.
            Some(Planned::NoOp) => Ok(Some(all().map(|step| (step.clone(), Foreseen::Skip)).collect())),
            Some(Planned::Steps(steps)) => {
                if !steps.iter().map(|(step, _)| step).eq(all()) {
                    let why = format!("its steps of {server} are not those of the artifact's plan");
                    return Err(Refusal::PlanOther { why });
                }
                let foreseen = |(step, planned): &(StepName, PlannedStep)| match planned {
                    PlannedStep::Run => Some((step.clone(), Foreseen::Run)),
                    PlannedStep::Skip => Some((step.clone(), Foreseen::Skip)),
                    PlannedStep::Undetermined => None,
                };
                Ok(Some(steps.iter().filter_map(foreseen).collect()))
            }
        }
    }
}

fn read(text: &str) -> Option<PlanDocument> {
    let mut lines = text.lines();
    if lines.next()? != FORMAT {
        return None;
    }
    let artifact = lines.next()?.strip_prefix("artifact ")?.parse().ok()?;
    let config = match lines.next()?.strip_prefix("config ")? {
        NONE => None,
        digest => Some(digest.parse().ok()?),
    };
    let mut servers: BTreeMap<ServerName, Planned> = BTreeMap::new();
    for line in lines {
        let (server, rest) = line.split_once(' ')?;
        let server: ServerName = server.parse().ok()?;
        if rest == NO_OP {
            servers.insert(server, Planned::NoOp);
            continue;
        }
        let (step, decision) = rest.split_once(' ')?;
        let step = (step.parse().ok()?, PlannedStep::parse(decision)?);
        match servers.entry(server).or_insert_with(|| Planned::Steps(Vec::new())) {
            Planned::Steps(steps) => steps.push(step),
            Planned::NoOp => return None,
        }
    }
    Some(PlanDocument { artifact, config, servers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PlanDocument {
        let steps = |of: &[(&str, PlannedStep)]| {
            Planned::Steps(of.iter().map(|(name, step)| (name.parse().unwrap(), *step)).collect())
        };
        PlanDocument {
            artifact: Sha256::of(b"artifact"),
            config: None,
            servers: BTreeMap::from([
                (
                    "web-1".parse().unwrap(),
                    steps(&[("one", PlannedStep::Run), ("activate", PlannedStep::Undetermined)]),
                ),
                ("web-2".parse().unwrap(), Planned::NoOp),
                ("web-3".parse().unwrap(), steps(&[("one", PlannedStep::Skip)])),
            ]),
        }
    }

    fn text() -> String {
        String::from_utf8(sample().to_vec()).unwrap()
    }

    fn plan() -> Plan {
        let text = "app = \"shop\"\n[[step]]\nname = \"one\"\nrun = [\"a\"]\n[[step]]\nname = \"activate\"\nactivate = true\n";
        Plan::parse(text, "consign.toml").unwrap()
    }

    #[test]
    fn has_one_form() {
        let artifact = Sha256::of(b"artifact");
        let expected = format!(
            "consign-plan-v1\nartifact {artifact}\nconfig none\nweb-1 one run\nweb-1 activate undetermined\nweb-2 no-op\nweb-3 one skip\n"
        );
        assert_eq!(text(), expected);
        assert_eq!(PlanDocument::parse(expected.as_bytes()), Ok(sample()));
        assert_eq!(sample().digest(), Sha256::of(expected.as_bytes()));
        let configured = PlanDocument { config: Some(Sha256::of(b"{}")), ..sample() };
        assert_eq!(PlanDocument::parse(&configured.to_vec()), Ok(configured));
    }

    #[test]
    fn any_other_form_is_refused() {
        let replaced = |from: &str, to: &str| {
            assert!(text().contains(from), "{from}");
            text().replacen(from, to, 1)
        };
        for bad in [
            String::new(),
            "consign-plan-v1\n".to_owned(),
            replaced("plan-v1", "plan-v2"),
            replaced("artifact ", "artifact  "),
            replaced("artifact ", "artefact "),
            replaced("config none", "config"),
            replaced("config none", "config None"),
            replaced("config none", "konfig none"),
            replaced("web-1 one run", "web-1 one Run"),
            replaced("web-1 one run", "web-1 one"),
            replaced("web-1 one run", "web-1  one run"),
            replaced("web-1 one run", "web-1 one run "),
            replaced("web-1 one run", "web-1 ONE run"),
            replaced("web-1 one run", "web_1 one run"),
            replaced("web-1 one run", "web-4 one run"),
            replaced("web-1 one run", ""),
            replaced("web-2 no-op\n", "web-2 no-op\nweb-2 no-op\n"),
            replaced("web-2 no-op\n", "web-2 no-op\nweb-2 one run\n"),
            replaced("web-3 one skip\n", "web-3 one skip\nweb-3 no-op\n"),
            replaced("web-3 one skip\n", "web-3 one skip"),
            replaced("web-1 one run\n", "web-1 one run\r\n"),
            format!("{}web-1 one run\n", text()),
        ] {
            assert_eq!(PlanDocument::parse(bad.as_bytes()).expect_err(&bad).code(), "malformed", "{bad}");
        }
        assert!(PlanDocument::parse(b"\xff").is_err());
        let long = text() + &"x".repeat(PLAN_DOCUMENT_BYTES);
        assert!(PlanDocument::parse(long.as_bytes()).unwrap_err().to_string().contains("at most"));
    }

    #[test]
    fn is_read_up_to_its_limit() {
        let line = "web-3 one skip\n";
        let left = PLAN_DOCUMENT_BYTES - text().len();
        let last = format!("web-3 one{} skip\n", "x".repeat(left % line.len()));
        let whole = text() + &line.repeat(left / line.len() - 1) + &last;
        assert_eq!(whole.len(), PLAN_DOCUMENT_BYTES);
        PlanDocument::parse(whole.as_bytes()).unwrap();
        assert!(PlanDocument::parse(&[whole.as_bytes(), b"web-4 no-op\n"].concat()).is_err());
    }

    #[test]
    fn binds_the_servers_that_it_has() {
        let pinned = |server: &str| sample().pinned(&server.parse().unwrap(), &plan());
        let step = |name: &str, foreseen| (name.parse().unwrap(), foreseen);
        assert_eq!(pinned("web-1"), Ok(Some(BTreeMap::from([step("one", Foreseen::Run)]))));
        let nothing = [step("one", Foreseen::Skip), step("activate", Foreseen::Skip)];
        assert_eq!(pinned("web-2"), Ok(Some(BTreeMap::from(nothing))));
        assert_eq!(pinned("web-3").unwrap_err().code(), "plan-other", "a step of the plan is not there");
        assert_eq!(pinned("web-4"), Ok(None));
        let mut skips = sample();
        let steps = vec![
            ("one".parse().unwrap(), PlannedStep::Skip),
            ("activate".parse().unwrap(), PlannedStep::Run),
        ];
        skips.servers.insert("web-3".parse().unwrap(), Planned::Steps(steps));
        let expected = BTreeMap::from([step("one", Foreseen::Skip), step("activate", Foreseen::Run)]);
        assert_eq!(skips.pinned(&"web-3".parse().unwrap(), &plan()), Ok(Some(expected)));
    }
}
