//! What conditions come to on this server.

use std::collections::BTreeMap;

use consign_common::{
    artifact::Manifest,
    deployment::Attempt,
    json,
    limits::ArtifactLimits,
    plan::{Changes, Facts, Phase},
    trust::{
        OrderKind,
        authorize::{Installed, Work},
    },
};

use super::{
    Processes, Roots, Site,
    deployment::{Deployment, MESSAGE, NO_STEP},
};
use crate::{core::Verdict, ports::Fetch, stage::AppDirectory};

const INPUT: usize = 256;
/// Bytes of all inputs of one condition.
const INPUTS_TOLD: usize = 16 << 10;

impl<F, P, R> Deployment<F, P, R>
where
    F: Fetch + 'static,
    P: Processes,
    R: Roots,
{
    /// What `previous` means: the last good artifact; on a return, the artifact being left.
    pub(super) fn left(&self, phase: Phase) -> Option<(String, Left<'_>)> {
        let good = || self.memory.good.as_ref().map(|good| (good.release.clone(), Left::Installed(good)));
        match (phase, &self.order.order) {
            (Phase::Deploy, _) | (Phase::Return, OrderKind::Return { .. }) => good(),
            (Phase::Return, _) => Some((self.run.staged()?.to_owned(), Left::Work(&self.work))),
        }
    }

    pub(super) fn evaluate(&self, phase: Phase, index: u32) -> Verdict {
        let evaluated = || {
            let artifact = self.artifact(phase)?;
            let step = artifact.plan.steps.get(index as usize).ok_or(NO_STEP)?;
            let Some(condition) = &step.when else { return Ok(Verdict::Run) };
            let facts = self.facts(phase, artifact, condition.paths().into_iter())?;
            let evaluation = condition.evaluate(&facts)?;
            if evaluation.value {
                return Ok(Verdict::Run);
            }
            let inputs = brief_inputs(evaluation.inputs);
            Ok(Verdict::Skip { expression: condition.text().to_owned(), inputs })
        };
        evaluated().unwrap_or_else(|message: String| Verdict::Invalid { message: brief(&message, MESSAGE) })
    }

    fn facts<'a>(
        &self,
        phase: Phase,
        artifact: &Work,
        paths: impl Iterator<Item = &'a str>,
    ) -> Result<Facts, String> {
        let app = AppDirectory::open(self.site.apps(), &self.order.app).map_err(|error| error.to_string())?;
        let (_, release) = self.place(phase)?;
        let release = app.release_path(&release);
        let left = self.left(phase).map(|(_, left)| left);
        let manifest = match &left {
            Some(Left::Work(work)) => Some(work.manifest.clone()),
            Some(Left::Installed(installed)) => Some(self.manifest(installed)?),
            None => None,
        };
        let named = |(attempt, outcome): (&Attempt, &&'static str)| {
            let step = artifact.plan.steps.get(attempt.step as usize)?;
            Some((step.name.clone(), (*outcome).to_owned()))
        };
        // Ascending: of several attempts the last one counts.
        let of_phase = self.outcomes.iter().filter(|(attempt, _)| attempt.phase == phase);
        Ok(Facts {
            outcomes: of_phase.filter_map(named).collect(),
            exists: paths.map(|path| (path.to_owned(), release.join(path).exists())).collect(),
            ..facts(&self.site, artifact, manifest.as_ref())
        })
    }

    pub(super) fn manifest(&self, installed: &Installed) -> Result<Manifest, String> {
        let bytes = self.site.documents().manifest(installed.manifest).map_err(|error| error.to_string())?;
        let bytes =
            bytes.ok_or_else(|| format!("the manifest of {} is not on this server", installed.version))?;
        json::from_slice(&bytes, ArtifactLimits::default().manifest_bytes).map_err(|error| error.to_string())
    }
}

/// What conditions of this artifact's plan may ask before anything has run.
pub(super) fn facts<F, P, R>(site: &Site<F, P, R>, artifact: &Work, previous: Option<&Manifest>) -> Facts {
    Facts {
        artifact: artifact.manifest.version.clone(),
        previous: previous.map(|manifest| manifest.version.clone()),
        changes: Changes::between(previous, &artifact.manifest),
        environment: site.word.environment.clone(),
        server: site.word.server.clone(),
        labels: site.word.labels.clone(),
        host: site.facts.clone(),
        params: artifact.config.plain(),
        outcomes: BTreeMap::new(),
        exists: BTreeMap::new(),
    }
}

pub(super) enum Left<'a> {
    Installed(&'a Installed),
    Work(&'a Work),
}

pub(super) fn brief(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    format!("{}…", text.get(..end).unwrap_or_default())
}

pub(super) fn brief_inputs(inputs: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut left = INPUTS_TOLD;
    let told = |(name, value): (String, String)| {
        let value = brief(&value, INPUT.min(left));
        left = left.saturating_sub(value.len());
        (name, value)
    };
    inputs.into_iter().map(told).collect()
}
