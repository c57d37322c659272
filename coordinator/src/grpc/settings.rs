//! Settings on the wire: checked on their way in, and said again on their way out.

use consign_proto::v1;
use tonic::Status;

use super::answer::invalid;
use crate::{
    environments::{Automation, Freeze, Health, Keep, Settings},
    rollout::{GroupBudget, HealthCheck, Offline, OnStop, Probe, Strategy},
    rollouts::Queueing,
};

pub(crate) fn from_wire(wire: v1::Settings) -> Result<Settings, Status> {
    let settings = Settings {
        waves: Some(wire.waves).filter(|waves| !waves.is_empty()),
        canary: wire.canary,
        bake_ms: wire.bake_ms,
        failures: wire.failures,
        group: wire.group.map(|group| GroupBudget { label: group.label, failures: group.failures }),
        min_healthy: wire.min_healthy,
        offline: wire.offline.map(|text| offline(&text, wire.wait_ms)).transpose()?,
        health: wire.health.map(health).transpose()?,
        confirm_ms: wire.confirm_ms,
        on_stop: wire.on_stop.map(|text| word("on-stop", &text, &OnStop::ALL, OnStop::as_str)).transpose()?,
        queue: wire.queue.map(|text| word("queue", &text, &Queueing::ALL, Queueing::as_str)).transpose()?,
        automation: automation(wire.automation.unwrap_or_default())?,
    };
    settings.check().map_err(invalid)?;
    Ok(settings)
}

fn automation(wire: v1::Automation) -> Result<Automation, Status> {
    let keep = |text: String| word("candidates", &text, &Keep::ALL, Keep::as_str);
    let freeze = |wire: v1::Freeze| Freeze {
        days: wire.days,
        from: wire.from,
        to: wire.to,
        timezone: Some(wire.timezone).filter(|name| !name.is_empty()),
    };
    Ok(Automation {
        deploy: wire.deploy.map(|text| text.parse().map_err(invalid)).transpose()?,
        candidates: wire.candidates.map(keep).transpose()?,
        veto_ms: wire.veto_ms,
        freeze: wire.freeze.into_iter().map(freeze).collect(),
    })
}

fn automation_to_wire(automation: Automation) -> v1::Automation {
    let freeze = |freeze: Freeze| v1::Freeze {
        days: freeze.days,
        from: freeze.from,
        to: freeze.to,
        timezone: freeze.timezone.unwrap_or_default(),
    };
    v1::Automation {
        deploy: automation.deploy.map(String::from),
        candidates: automation.candidates.map(|keep| keep.as_str().to_owned()),
        veto_ms: automation.veto_ms,
        freeze: automation.freeze.into_iter().map(freeze).collect(),
    }
}

fn offline(text: &str, wait_ms: u64) -> Result<Offline, Status> {
    match text {
        "fail" => Ok(Offline::Fail),
        "owe" => Ok(Offline::Owe),
        "wait" => Ok(Offline::Wait { ms: wait_ms }),
        other => Err(invalid(format!("offline is fail, owe or wait, not {:?}", cut(other)))),
    }
}

fn health(wire: v1::HealthCheck) -> Result<Health, Status> {
    let probe = match (wire.url, wire.command) {
        (url, command) if url.is_empty() && command.is_empty() => return Ok(Health::Unasked),
        (url, command) if command.is_empty() => {
            let status = u16::try_from(wire.status).map_err(|_| invalid("a status has three digits"))?;
            Probe::Http { url, status }
        }
        (url, command) if url.is_empty() => Probe::Command { name: command },
        _ => return Err(invalid("a wave's health is asked over HTTP or of a command, not both")),
    };
    Ok(Health::Check(HealthCheck { probe, within_ms: wire.within_ms }))
}

fn word<T: Copy>(what: &str, text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, Status> {
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        invalid(format!("{what} is one of {}, not {:?}", names.join(", "), cut(text)))
    })
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

pub(super) fn to_wire(settings: Settings) -> v1::Settings {
    let (offline, wait_ms) = offline_to_wire(settings.offline.as_ref());
    v1::Settings {
        waves: settings.waves.unwrap_or_default(),
        canary: settings.canary,
        bake_ms: settings.bake_ms,
        failures: settings.failures,
        group: settings.group.map(group_to_wire),
        min_healthy: settings.min_healthy,
        offline,
        wait_ms,
        health: settings.health.map(|health| match health {
            Health::Unasked => v1::HealthCheck::default(),
            Health::Check(check) => health_to_wire(check),
        }),
        confirm_ms: settings.confirm_ms,
        on_stop: settings.on_stop.map(|on_stop| on_stop.as_str().to_owned()),
        queue: settings.queue.map(|queue| queue.as_str().to_owned()),
        automation: Some(automation_to_wire(settings.automation))
            .filter(|it| *it != v1::Automation::default()),
    }
}

/// A strategy as it was frozen.
pub(super) fn of_strategy(strategy: &Strategy, waves: &[String]) -> v1::Settings {
    let (offline, wait_ms) = offline_to_wire(Some(&strategy.offline));
    v1::Settings {
        waves: waves.to_vec(),
        canary: None,
        bake_ms: Some(strategy.bake_ms),
        failures: Some(strategy.failures),
        group: strategy.group.clone().map(group_to_wire),
        min_healthy: Some(strategy.min_healthy.to_string()),
        offline,
        wait_ms,
        health: strategy.health.clone().map(health_to_wire),
        confirm_ms: Some(strategy.confirm_ms).filter(|ms| *ms > 0),
        on_stop: Some(strategy.on_stop.as_str().to_owned()),
        queue: None,
        automation: None,
    }
}

fn offline_to_wire(offline: Option<&Offline>) -> (Option<String>, u64) {
    match offline {
        None => (None, 0),
        Some(Offline::Fail) => (Some("fail".to_owned()), 0),
        Some(Offline::Owe) => (Some("owe".to_owned()), 0),
        Some(Offline::Wait { ms }) => (Some("wait".to_owned()), *ms),
    }
}

fn group_to_wire(group: GroupBudget) -> v1::GroupBudget {
    v1::GroupBudget { label: group.label, failures: group.failures }
}

fn health_to_wire(check: HealthCheck) -> v1::HealthCheck {
    let (url, status, command) = match check.probe {
        Probe::Http { url, status } => (url, status.into(), String::new()),
        Probe::Command { name } => (String::new(), 0, name),
    };
    v1::HealthCheck { url, status, command, within_ms: check.within_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_back_as_it_was() {
        let text = r#"
[environment.production]
waves = ["1", "100%"]
canary = "role=canary"
bake = "5m"
failures = 1
group = { label = "zone", failures = 0 }
min_healthy = "75%"
offline = { wait = "10m" }
health = { http = "http://shop/", within = "2m" }
confirm = "30m"
on_stop = "rollback"
queue = "supersede"
deploy = "after:staging"
candidates = "newest"
veto = "2h"
freeze = [{ days = ["fri"], from = "16:00", to = "24:00", timezone = "UTC" }, { from = "2026-12-24T00:00:00Z", to = "2026-12-26T00:00:00Z" }]
"#;
        for settings in crate::environments::parse(text, "e.toml").unwrap().into_values() {
            assert_eq!(from_wire(to_wire(settings.clone())).unwrap(), settings);
        }
        let off = Settings { health: Some(Health::Unasked), ..Settings::default() };
        assert_eq!(from_wire(to_wire(off.clone())).unwrap(), off);
        assert_eq!(from_wire(v1::Settings::default()).unwrap(), Settings::default());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_here_too() {
        let some = |text: &str| Some(text.to_owned());
        let bad = [
            v1::Settings { waves: vec!["50%".into(), "25%".into()], ..Default::default() },
            v1::Settings { canary: some("a,,b"), ..Default::default() },
            v1::Settings { bake_ms: Some(u64::MAX), ..Default::default() },
            v1::Settings { min_healthy: some("most"), ..Default::default() },
            v1::Settings { offline: some("wait"), wait_ms: 0, ..Default::default() },
            v1::Settings { offline: some("skip"), ..Default::default() },
            v1::Settings { on_stop: some("explode"), ..Default::default() },
            v1::Settings { confirm_ms: Some(0), ..Default::default() },
            v1::Settings {
                automation: Some(v1::Automation { deploy: some("before:x"), ..Default::default() }),
                ..Default::default()
            },
            v1::Settings {
                automation: Some(v1::Automation {
                    freeze: vec![v1::Freeze {
                        from: "16:00".into(),
                        to: "17:00".into(),
                        ..Default::default()
                    }],
                    ..Default::default()
                }),
                ..Default::default()
            },
            v1::Settings {
                health: Some(v1::HealthCheck { command: "../sh".into(), within_ms: 1, ..Default::default() }),
                ..Default::default()
            },
            v1::Settings {
                health: Some(v1::HealthCheck {
                    url: "https://shop/".into(),
                    status: 200,
                    within_ms: 1,
                    ..Default::default()
                }),
                ..Default::default()
            },
        ];
        for settings in bad {
            assert!(from_wire(settings.clone()).is_err(), "{settings:?}");
        }
    }
}
