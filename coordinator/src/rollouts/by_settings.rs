//! How a rollout goes about it, by what its environment's settings say.

use consign_common::{
    name::{App, Environment, Version},
    time::UnixMs,
};

use super::{
    admission::NotStarted,
    rows::Again,
    start::{Canary, Shorter, StartRequest},
};
use crate::{
    environments::{Health, Settings},
    fleet::Selector,
    rollout::Strategy,
};

impl StartRequest {
    /// All servers of the environment, by its settings and, where it says otherwise, by what is `asked` for this once.
    pub fn by_settings(
        (app, version, environment): (App, Version, Environment),
        asked: Settings,
        own: Settings,
    ) -> Result<Self, NotStarted> {
        let confirm_ms = match (asked.confirm_ms, own.confirm_ms) {
            (Some(ms), _) => Some(Shorter::Asked(ms)),
            (None, Some(ms)) => Some(Shorter::Everywhere(ms)),
            (None, None) => None,
        };
        let settings = asked.over(own);
        let min_healthy = match settings.min_healthy.as_deref() {
            None | Some("0" | "0%") => None,
            Some(text) => Some(text.parse()?),
        };
        let canary = match settings.canary.clone().filter(|text| !text.trim().is_empty()) {
            None => None,
            Some(text) => Some(Canary { selector: text.parse()?, text }),
        };
        Ok(Self {
            id: None,
            app,
            version,
            environment,
            candidate: None,
            waves: settings.waves.clone().unwrap_or_default(),
            canary,
            selector: Selector::All,
            selector_text: String::new(),
            strategy: strategy(&settings),
            min_healthy,
            confirm_ms,
            queueing: settings.queue.unwrap_or_default(),
            not_before: UnixMs(0),
            skip: Vec::new(),
            pinned: None,
            again: Again::LeaveAlone,
            by: String::new(),
            reason: String::new(),
        })
    }
}

/// What the settings say of it; the rest depends on the servers and the plan.
fn strategy(settings: &Settings) -> Strategy {
    Strategy {
        bake_ms: settings.bake_ms.unwrap_or(0),
        failures: settings.failures.unwrap_or(0),
        group: settings.group.clone(),
        min_healthy: 0,
        offline: settings.offline.clone().unwrap_or_default(),
        health: match &settings.health {
            Some(Health::Check(check)) => Some(check.clone()),
            Some(Health::Unasked) | None => None,
        },
        on_stop: settings.on_stop.unwrap_or_default(),
        confirm_ms: 0,
    }
}
