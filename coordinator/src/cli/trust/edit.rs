//! Changes of a trust root. Pure.

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Owner},
    time::UnixMs,
    trust::{AppTrust, CoordinatorPin, Gate, Key, OrderingNumber, RoleKeys, TrustRoot},
};

use super::{
    difference::number,
    role::{NamedKey, RoleName, all_mut, places},
};
use crate::cli::failure::{Failure, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// `None`: by the publishers that all apps have.
    AddApp {
        app: App,
        publisher: Option<NamedKey>,
    },
    AddEnvironment(Environment),
    AddPublisher {
        app: App,
        publisher: NamedKey,
    },
    Floor {
        app: App,
        floor: UnixMs,
    },
    /// Another epoch: what was signed in the one before counts no more.
    NextEpoch(App),
    Revoke(Sha256),
    Expires(UnixMs),
    /// `threshold`: what the role has afterwards; `None`: what it has now. A role that gates name is made by giving one.
    AddKeys {
        role: RoleName,
        keys: Vec<NamedKey>,
        threshold: Option<u32>,
    },
    /// Out of one role.
    RemoveKey {
        role: RoleName,
        key: Sha256,
    },
    /// Out of every role; the other in its place.
    Rotate {
        from: Sha256,
        to: Option<NamedKey>,
    },
    SetGate {
        environment: Environment,
        gate: Gate,
    },
    /// Who signs the app's config.
    ConfigRole {
        app: App,
        role: Owner,
    },
    AddCoordinator(CoordinatorPin),
    RemoveCoordinator(String),
}

/// The next version.
pub(super) fn next(root: &TrustRoot, edits: Vec<Edit>, now: UnixMs) -> Result<TrustRoot> {
    let mut next = root.clone();
    next.version =
        next.version.checked_add(1).ok_or_else(|| Failure::new("there is no version after the last"))?;
    next.issued = now;
    for edit in edits {
        apply(&mut next, edit)?;
    }
    if next.expires <= now {
        return Err(Failure::new(format!("the trust root expired at {}", next.expires))
            .next("say how long the next one is valid: --expires 365d"));
    }
    let unused: Vec<Sha256> = next.keys.keys().filter(|id| places(&next, id).is_empty()).copied().collect();
    unused.iter().for_each(|id| drop(next.keys.remove(id)));
    next.check()
        .map_err(|refusal| Failure::new(format!("the next trust root would not be valid: {refusal}")))?;
    Ok(next)
}

pub(super) fn apply(root: &mut TrustRoot, edit: Edit) -> Result<()> {
    match edit {
        Edit::AddApp { app, publisher } => add_app(root, app, publisher),
        Edit::AddEnvironment(environment) => {
            if root.environments.contains_key(&environment) {
                return Err(Failure::new(format!("the trust root names {environment} already")));
            }
            root.environments.insert(environment, Gate::PublisherOnly {});
            Ok(())
        }
        Edit::AddPublisher { app, publisher } => {
            let key = add_key(root, publisher)?;
            let publishers = &mut app_trust(root, &app)?.publishers;
            if publishers.keys.contains(&key) {
                return Err(Failure::new(format!("{} publishes {app} already", key.short())));
            }
            publishers.keys.push(key);
            Ok(())
        }
        Edit::Floor { app, floor } => {
            let trust = app_trust(root, &app)?;
            let floor = OrderingNumber { epoch: trust.epoch, ms: floor };
            if floor < trust.floor {
                return Err(Failure::new(format!(
                    "the floor of {app} is at {} already; it is never lowered",
                    number(trust.floor)
                )));
            }
            trust.floor = floor;
            Ok(())
        }
        Edit::NextEpoch(app) => {
            let trust = app_trust(root, &app)?;
            trust.epoch =
                trust.epoch.checked_add(1).ok_or_else(|| Failure::new("there is no later epoch"))?;
            Ok(())
        }
        Edit::Revoke(digest) => {
            if root.revoked.contains(&digest) {
                return Err(Failure::new(format!("{digest} is revoked already")));
            }
            root.revoked.push(digest);
            Ok(())
        }
        Edit::Expires(at) => {
            root.expires = at;
            Ok(())
        }
        Edit::AddKeys { role, keys, threshold } => add_keys(root, &role, keys, threshold),
        Edit::RemoveKey { role, key } => {
            let keys = &mut role_mut(root, &role, None)?.keys;
            let before = keys.len();
            keys.retain(|id| *id != key);
            if keys.len() == before {
                return Err(Failure::new(format!("{} is not a key of the role {role}", key.short())));
            }
            Ok(())
        }
        Edit::Rotate { from, to } => rotate(root, from, to),
        Edit::SetGate { environment, gate } => {
            let Some(known) = root.environments.get_mut(&environment) else {
                return Err(Failure::new(format!("the trust root does not name {environment}"))
                    .next(format!("add it first: consign trust update --add-env {environment}")));
            };
            *known = gate;
            Ok(())
        }
        Edit::ConfigRole { app, role } => {
            if !root.roles.contains_key(&role) {
                return Err(no_role(root, &role));
            }
            app_trust(root, &app)?.config = Some(role);
            Ok(())
        }
        Edit::AddCoordinator(pin) => {
            root.coordinators.push(pin);
            Ok(())
        }
        Edit::RemoveCoordinator(id) => {
            let before = root.coordinators.len();
            root.coordinators.retain(|pin| pin.id != id);
            if root.coordinators.len() == before {
                return Err(Failure::new(format!("the trust root names no coordinator {id}")));
            }
            Ok(())
        }
    }
}

fn add_app(root: &mut TrustRoot, app: App, publisher: Option<NamedKey>) -> Result<()> {
    if root.apps.contains_key(&app) {
        return Err(Failure::new(format!("the trust root names {app} already"))
            .next(format!("add a publisher to it: --add-publisher {app}=FILE")));
    }
    let publishers = match publisher {
        Some(publisher) => RoleKeys { keys: vec![add_key(root, publisher)?], threshold: 1 },
        None => common_publishers(root, &app)?,
    };
    let trust = AppTrust { publishers, epoch: 0, floor: OrderingNumber::default(), config: None };
    root.apps.insert(app, trust);
    Ok(())
}

fn add_keys(
    root: &mut TrustRoot,
    role: &RoleName,
    keys: Vec<NamedKey>,
    threshold: Option<u32>,
) -> Result<()> {
    let ids = keys.into_iter().map(|key| add_key(root, key)).collect::<Result<Vec<_>>>()?;
    let of_role = role_mut(root, role, threshold)?;
    for id in ids {
        if of_role.keys.contains(&id) {
            return Err(Failure::new(format!("{} is a key of the role {role} already", id.short())));
        }
        of_role.keys.push(id);
    }
    of_role.threshold = threshold.unwrap_or(of_role.threshold);
    Ok(())
}

/// A role as it stands. One that is not there is made where there is a threshold for it, or where it has one place only.
fn role_mut<'a>(
    root: &'a mut TrustRoot,
    role: &RoleName,
    threshold: Option<u32>,
) -> Result<&'a mut RoleKeys> {
    let empty = || RoleKeys { keys: Vec::new(), threshold: 1 };
    match role {
        RoleName::Root => Ok(&mut root.root),
        RoleName::Publisher(app) => Ok(&mut app_trust(root, app)?.publishers),
        RoleName::Enrolment => Ok(root.enrolment.get_or_insert_with(empty)),
        RoleName::Config(app) => {
            let name = match &app_trust(root, app)?.config {
                Some(name) => name.clone(),
                None => format!("config-{app}").parse().map_err(|_| {
                    Failure::new(format!("{app} is too long a name for a role of its own"))
                        .next(format!("name a role that there is: consign trust update --config {app}=ROLE"))
                })?,
            };
            app_trust(root, app)?.config = Some(name.clone());
            Ok(root.roles.entry(name).or_insert_with(empty))
        }
        RoleName::Gate(name) => {
            if !root.roles.contains_key(name) && threshold.is_none() {
                return Err(no_role(root, name));
            }
            Ok(root.roles.entry(name.clone()).or_insert_with(empty))
        }
    }
}

fn no_role(root: &TrustRoot, name: &Owner) -> Failure {
    let names: Vec<&str> = root.roles.keys().map(Owner::as_str).collect();
    Failure::new(format!("the trust root has no role {name}")).next(format!(
        "it has root, enrolment, publisher of APP, config of APP, {}; a new one has a threshold: \
         consign trust add-key {name}=FILE.pub --threshold 1",
        names.join(", ")
    ))
}

fn rotate(root: &mut TrustRoot, from: Sha256, to: Option<NamedKey>) -> Result<()> {
    let to = to.map(|key| add_key(root, key)).transpose()?;
    if to == Some(from) {
        return Err(Failure::new("the new key is the old one"));
    }
    for role in all_mut(root) {
        let Some(at) = role.keys.iter().position(|id| *id == from) else { continue };
        match to.filter(|to| !role.keys.contains(to)) {
            Some(to) => role.keys.splice(at..=at, [to]).for_each(drop),
            None => drop(role.keys.remove(at)),
        }
    }
    root.keys.remove(&from);
    Ok(())
}

fn add_key(root: &mut TrustRoot, named: NamedKey) -> Result<Sha256> {
    let id = named.key.id();
    let key = Key { scheme: named.scheme, public: named.key.to_base64(), owner: named.owner };
    match root.keys.get(&id) {
        Some(known) if *known != key => Err(Failure::new(format!(
            "the trust root has the key {} as {}'s ({:?}), here it is {}'s ({:?})",
            id.short(),
            known.owner,
            known.scheme,
            key.owner,
            key.scheme
        ))),
        Some(_) | None => {
            root.keys.insert(id, key);
            Ok(id)
        }
    }
}

fn app_trust<'a>(root: &'a mut TrustRoot, app: &App) -> Result<&'a mut AppTrust> {
    root.apps.get_mut(app).ok_or_else(|| {
        Failure::new(format!("the trust root does not name {app}"))
            .next(format!("add it: consign trust update --add-app {app}"))
    })
}

fn common_publishers(root: &TrustRoot, app: &App) -> Result<RoleKeys> {
    let mut all = root.apps.values().map(|trust| &trust.publishers);
    match all.next() {
        Some(first) if all.all(|other| other == first) => Ok(first.clone()),
        Some(_) | None => {
            Err(Failure::usage(format!("apps have different publishers; who publishes {app}?"))
                .next("name the key: --publisher FILE.pub"))
        }
    }
}

#[cfg(test)]
#[path = "edit_tests.rs"]
pub(super) mod tests;
