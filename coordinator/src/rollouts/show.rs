//! Rollouts as they are now.

use consign_common::{
    name::{App, Environment, Id, ServerName},
    time::UnixMs,
};

use super::{
    admission::NotStarted,
    controller::Controller,
    rows::{DeploymentRow, Hold, RolloutRow},
    store,
};
use crate::rollout::{Kind, Member, Phase, explain};

/// Rollouts in one listing.
const LIST: u32 = 1000;

/// A rollout with its servers' rows, both in the order of names.
#[derive(Clone, Debug)]
pub struct Shown {
    pub row: RolloutRow,
    /// With those that a retry replaced, oldest attempt first.
    pub deployments: Vec<DeploymentRow>,
    /// What keeps things from beginning by themselves in its environment.
    pub hold: Option<Hold>,
    pub now: UnixMs,
    /// Servers that have an order and are not connected now.
    pub away: Vec<ServerName>,
}

impl Shown {
    /// The newest one.
    pub fn deployment(&self, member: &Member) -> Option<&DeploymentRow> {
        self.deployments.iter().rfind(|row| row.server == member.server)
    }

    /// The state's name for people and for `--output json`.
    pub fn state(&self) -> &'static str {
        self.row.state.as_str()
    }

    /// Why it is where it is, in one line.
    pub fn because(&self) -> String {
        match (&self.row.state.phase, &self.hold) {
            (Phase::Queued { .. }, Some(hold))
                if self.row.state.kind == Kind::Deploy && self.row.asked <= hold.at =>
            {
                format!(
                    "held: {}; `consign env lift-hold {} --env {}`",
                    hold.because, hold.app, hold.environment
                )
            }
            _ => {
                let at = explain(&self.row.state, self.now);
                match self.away.as_slice() {
                    [] => at,
                    [one] => format!("{at}; {one} is not connected"),
                    [one, others @ ..] => format!("{at}; {one} and {} more are not connected", others.len()),
                }
            }
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
        Ok(store::open(self.store.read()).await?.len())
    }

    async fn with_deployments(&self, row: RolloutRow) -> Result<Shown, NotStarted> {
        let deployments = store::deployments(self.store.read(), &row.id).await?;
        let hold = store::hold(self.store.read(), &row.app, &row.environment).await?;
        let ordered = row.state.members.iter().filter(|member| member.state.is_ordered());
        let away = ordered.map(|member| &member.server).filter(|server| !self.sessions.is_online(server));
        let away = away.cloned().collect();
        Ok(Shown { row, deployments, hold, now: self.clock.now(), away })
    }
}
