//! The config that a rollout is of: checked before anything begins, as far as that goes without knowing secrets.

use consign_common::{
    config::effective,
    name::{App, Environment, ServerName},
    plan::Plan,
    trust::Refusal,
};

use super::{
    NotStarted,
    controller::{Controller, ControllerError},
    rows::{OrderRow, OrderTag},
    store,
};
use crate::{
    config::{self, ConfigError, ForServer, InForce},
    fleet::Server,
};

impl Controller {
    /// What goes with an order of a rollout: only what begins with an artifact runs with anything.
    pub(super) async fn config_with(&self, order: &OrderRow) -> Result<ForServer, ControllerError> {
        match order.kind {
            OrderTag::Deploy => {}
            // A way back has what it ran with on the server.
            OrderTag::Return | OrderTag::Cancel | OrderTag::Confirm | OrderTag::Decide | OrderTag::Once => {
                return Ok(ForServer::default());
            }
        }
        let db = self.store.read();
        let Some(deployment) = store::deployment(db, &order.deployment).await? else {
            return Ok(ForServer::default());
        };
        let Some(rollout) = store::rollout(db, &deployment.rollout).await? else {
            return Ok(ForServer::default());
        };
        let (app, environment) = (&rollout.app, &rollout.environment);
        Ok(config::for_rollout(db, &rollout.id, app, environment, &order.server).await?)
    }

    /// The newest config, as far as those signed it who may; `None`: nothing was ever set.
    pub(super) async fn in_force(
        &self,
        app: &App,
        environment: &Environment,
    ) -> Result<Option<InForce>, NotStarted> {
        let (db, roots) = (self.store.read(), &self.trust_roots);
        InForce::newest(db, roots, app, environment).await.map_err(|error| match error {
            ConfigError::Refused(refusal) => NotStarted::Refused(refusal),
            ConfigError::Store(error) => error.into(),
            other @ (ConfigError::Sequence { .. }
            | ConfigError::Invalid(_)
            | ConfigError::ServerUnknown { .. }
            | ConfigError::OtherKey { .. }
            | ConfigError::None { .. }) => does_not_fit(app, environment, &other),
        })
    }

    /// The newest config, if it fits the plan and every secret is there for every server; `None`: nothing was ever set, and
    /// the plan's defaults are all there is.
    pub(super) async fn configured(
        &self,
        app: &App,
        environment: &Environment,
        plan: &Plan,
        servers: &[Server],
    ) -> Result<Option<InForce>, NotStarted> {
        let in_force = self.in_force(app, environment).await?;
        let db = self.store.read();
        let given = in_force.as_ref().map(|in_force| &in_force.config.values);
        effective(plan, given).map_err(|error| does_not_fit(app, environment, &error))?;
        if let Some(in_force) = &in_force {
            let taking_part = servers.iter().filter(|server| server.kept_out().is_none());
            let missing = in_force.missing(db, taking_part.map(|server| &server.name)).await?;
            if !missing.is_empty() {
                let of = |(server, names): (ServerName, Vec<_>)| {
                    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                    format!("{} on {server}", names.join(", "))
                };
                let missing: Vec<String> = missing.into_iter().map(of).collect();
                let (app, environment) = (app.clone(), environment.clone());
                return Err(NotStarted::SecretMissing { app, environment, missing: missing.join("; ") });
            }
        }
        Ok(in_force)
    }
}

fn does_not_fit(app: &App, environment: &Environment, error: &dyn std::fmt::Display) -> NotStarted {
    let why = format!("{error}; set it with `consign config set {app} --env {environment}`");
    Refusal::ConfigInvalid { why }.into()
}
