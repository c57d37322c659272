//! What this server executes of a plan, whatever anybody signed: root's own word.

use super::{Privilege, Refusal, authorize::Host};
use crate::{
    artifact::{InvalidManifest, Manifest},
    limits::ArtifactLimits,
    plan::{Kind, Plan, Step},
};

/// Checks every step of the manifest's plan, also those that may never run: a return runs others than a deployment, and
/// nobody may be surprised at three in the morning.
pub(super) fn check(manifest: &Manifest, plan: &Plan, host: Host<'_>) -> Result<(), Refusal> {
    check_word(plan, host)?;
    match &manifest.platform {
        Some(platform) if platform.as_str() != host.platform => {
            Err(Refusal::WrongPlatform { platform: platform.to_string(), own: host.platform.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

/// All rules of the manifest, now that somebody who may has signed it: a signature says who made it, not that its paths
/// are harmless.
pub(super) fn read_plan(manifest: &Manifest) -> Result<Plan, Refusal> {
    manifest.check(&ArtifactLimits::default()).map_err(|error| match error {
        InvalidManifest::Plan(_) | InvalidManifest::OtherApp { .. } | InvalidManifest::Shared(_) => {
            Refusal::PlanInvalid { why: error.to_string() }
        }
        InvalidManifest::Json(_)
        | InvalidManifest::NotCanonical
        | InvalidManifest::Format { .. }
        | InvalidManifest::TooManyEntries { .. }
        | InvalidManifest::Path { .. }
        | InvalidManifest::Link { .. }
        | InvalidManifest::Duplicate { .. }
        | InvalidManifest::Order { .. }
        | InvalidManifest::NoDirectory { .. }
        | InvalidManifest::FileTooLarge { .. }
        | InvalidManifest::TooLarge { .. }
        | InvalidManifest::PlanIsEntry => Refusal::Malformed { what: "manifest", why: error.to_string() },
    })
}

fn check_word(plan: &Plan, host: Host<'_>) -> Result<(), Refusal> {
    let mut of_app = host.word.allowances.iter().filter(|allowance| allowance.app == plan.app).peekable();
    if of_app.peek().is_none() {
        return Err(Refusal::AppNotAllowed { app: plan.app.clone() });
    }
    let (mut users, mut units) = (Vec::new(), Vec::new());
    for allowance in of_app {
        users.extend(allowance.users.iter().map(String::as_str));
        units.extend(allowance.units.iter().map(String::as_str));
    }
    plan.steps.iter().try_for_each(|step| check_step(plan, step, host.privilege, &users, &units))
}

fn check_step(
    plan: &Plan,
    step: &Step,
    privilege: &Privilege,
    users: &[&str],
    units: &[&str],
) -> Result<(), Refusal> {
    match &step.kind {
        Kind::Run(_) | Kind::Shell(_) => check_user(plan, step, privilege, users),
        Kind::Systemd(action) => match privilege {
            Privilege::User(_) => Err(needs_root(step, "act on systemd units")),
            Privilege::Root if units.contains(&action.unit.as_str()) => Ok(()),
            Privilege::Root => Err(Refusal::UnitNotAllowed {
                app: plan.app.clone(),
                step: step.name.to_string(),
                unit: action.unit.clone(),
            }),
        },
        Kind::Activate | Kind::Http(_) | Kind::Tcp(_) | Kind::Sleep(_) => Ok(()),
    }
}

fn check_user(plan: &Plan, step: &Step, privilege: &Privilege, users: &[&str]) -> Result<(), Refusal> {
    let user = match (privilege, step.user.as_deref()) {
        // The agent's own user, which a step without `user` has too, gives nothing that needs to be allowed.
        (Privilege::User(_), None) => return Ok(()),
        (Privilege::User(own), Some(user)) if user == own => return Ok(()),
        (Privilege::User(_), Some(_)) => return Err(needs_root(step, "run as another user")),
        (Privilege::Root, user) => user.unwrap_or("root"),
    };
    if users.contains(&user) {
        return Ok(());
    }
    Err(Refusal::UserNotAllowed { app: plan.app.clone(), step: step.name.to_string(), user: user.to_owned() })
}

fn needs_root(step: &Step, what: &'static str) -> Refusal {
    Refusal::NeedsRoot { step: step.name.to_string(), what }
}
