//! Rollouts as they are now.

use consign_common::name::{App, Environment, Id};

use super::{
    admission::NotStarted,
    controller::Controller,
    rows::{DeploymentRow, RolloutRow},
    store,
};
use crate::rollout::{Member, Phase};

/// Rollouts in one listing.
const LIST: u32 = 1000;

/// A rollout with its servers' rows, both in the order of names.
#[derive(Clone, Debug)]
pub struct Shown {
    pub row: RolloutRow,
    pub deployments: Vec<DeploymentRow>,
}

impl Shown {
    pub fn deployment(&self, member: &Member) -> Option<&DeploymentRow> {
        self.deployments.iter().find(|row| row.server == member.server)
    }

    /// The state's name for people and for `--output json`.
    pub fn state(&self) -> &'static str {
        match &self.row.state.phase {
            Phase::Queued => "queued",
            Phase::Running | Phase::Stopping => "running",
            Phase::Aborting { .. } => "aborting",
            Phase::Ended { verdict } => verdict.state.as_str(),
        }
    }

    pub fn because(&self) -> String {
        let members = &self.row.state.members;
        match &self.row.state.phase {
            Phase::Queued => "waits for the rollout that it pre-empts to end".to_owned(),
            Phase::Running => {
                let waves = members.iter().map(|member| member.wave).max().unwrap_or(0);
                let open = members.iter().filter(|member| member.state.end().is_none());
                let wave = open.map(|member| member.wave).min().unwrap_or(waves);
                format!("wave {wave} of {waves}")
            }
            Phase::Stopping => {
                let stopper = members.iter().find(|member| member.state.end().is_some_and(|end| end.stops()));
                let what = stopper.map_or(String::new(), |member| {
                    format!("{} is {}; ", member.server, member.state.as_str())
                });
                format!("{what}stopping: what runs may finish")
            }
            Phase::Aborting { because } => because.clone(),
            Phase::Ended { verdict } => verdict.because.clone(),
        }
    }

    pub fn exit_code(&self) -> u8 {
        self.row.state.verdict().map_or(0, |verdict| verdict.state.exit_code())
    }
}

impl Controller {
    /// The rollout whose id this is, or begins with this.
    pub async fn show(&self, given: &str) -> Result<Shown, NotStarted> {
        let is_hex = given.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let mut found = match given.len() {
            4..=32 if is_hex => store::rollouts_like(self.store.read(), given).await?,
            _ => Vec::new(),
        };
        let given = || given.chars().take(40).collect();
        match (found.pop(), found.pop()) {
            (Some(row), None) => self.with_deployments(row).await,
            (Some(_), Some(_)) => Err(NotStarted::RolloutAmbiguous { given: given() }),
            (None, _) => Err(NotStarted::RolloutUnknown { given: given() }),
        }
    }

    pub(super) async fn show_exactly(&self, id: &Id) -> Result<Shown, NotStarted> {
        let row = store::rollout(self.store.read(), id).await?;
        let row = row.ok_or_else(|| NotStarted::RolloutUnknown { given: id.to_string() })?;
        self.with_deployments(row).await
    }

    /// Newest first; 0 means as many as are ever listed.
    pub async fn list(
        &self,
        app: Option<&App>,
        environment: Option<&Environment>,
        limit: u32,
    ) -> Result<Vec<Shown>, NotStarted> {
        let limit = if limit == 0 { LIST } else { limit.min(LIST) };
        let mut all = Vec::new();
        for row in store::list(self.store.read(), app, environment, limit).await? {
            all.push(self.with_deployments(row).await?);
        }
        Ok(all)
    }

    pub async fn active(&self) -> Result<usize, NotStarted> {
        Ok(store::unended(self.store.read()).await?.len())
    }

    async fn with_deployments(&self, row: RolloutRow) -> Result<Shown, NotStarted> {
        let deployments = store::deployments(self.store.read(), &row.id).await?;
        Ok(Shown { row, deployments })
    }
}
