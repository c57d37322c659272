//! Changes of a trust root, and the words for them. Pure.

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Owner},
    time::UnixMs,
    trust::{AppTrust, Gate, Key, OrderingNumber, PublicKey, RoleKeys, Scheme, TrustRoot},
};

use crate::cli::failure::{Failure, Result};

/// A public key with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publisher {
    pub(super) owner: Owner,
    pub(super) scheme: Scheme,
    pub(super) key: PublicKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// `None`: by the publishers that all apps have.
    AddApp {
        app: App,
        publisher: Option<Publisher>,
    },
    AddEnvironment(Environment),
    AddPublisher {
        app: App,
        publisher: Publisher,
    },
    Floor {
        app: App,
        floor: UnixMs,
    },
    Revoke(Sha256),
    Expires(UnixMs),
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
    next.check()
        .map_err(|refusal| Failure::new(format!("the next trust root would not be valid: {refusal}")))?;
    Ok(next)
}

fn apply(root: &mut TrustRoot, edit: Edit) -> Result<()> {
    match edit {
        Edit::AddApp { app, publisher } => {
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
        }
        Edit::AddEnvironment(environment) => {
            if root.environments.contains_key(&environment) {
                return Err(Failure::new(format!("the trust root names {environment} already")));
            }
            root.environments.insert(environment, Gate::PublisherOnly {});
        }
        Edit::AddPublisher { app, publisher } => {
            let key = add_key(root, publisher)?;
            let publishers = &mut app_trust(root, &app)?.publishers;
            if publishers.keys.contains(&key) {
                return Err(Failure::new(format!("{} publishes {app} already", short(&key))));
            }
            publishers.keys.push(key);
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
        }
        Edit::Revoke(digest) => {
            if root.revoked.contains(&digest) {
                return Err(Failure::new(format!("{digest} is revoked already")));
            }
            root.revoked.push(digest);
        }
        Edit::Expires(at) => root.expires = at,
    }
    Ok(())
}

fn add_key(root: &mut TrustRoot, publisher: Publisher) -> Result<Sha256> {
    let id = publisher.key.id();
    let key = Key { scheme: publisher.scheme, public: publisher.key.to_base64(), owner: publisher.owner };
    match root.keys.get(&id) {
        Some(known) if *known != key => Err(Failure::new(format!(
            "the trust root has the key {} as {}'s, the file says {}",
            short(&id),
            known.owner,
            key.owner
        ))),
        _ => {
            root.keys.insert(id, key);
            Ok(id)
        }
    }
}

fn app_trust<'a>(root: &'a mut TrustRoot, app: &App) -> Result<&'a mut AppTrust> {
    root.apps.get_mut(app).ok_or_else(|| {
        Failure::new(format!("the trust root does not name {app}")).next(format!("add it: --add-app {app}"))
    })
}

fn common_publishers(root: &TrustRoot, app: &App) -> Result<RoleKeys> {
    let mut all = root.apps.values().map(|trust| &trust.publishers);
    match all.next() {
        Some(first) if all.all(|other| other == first) => Ok(first.clone()),
        _ => Err(Failure::usage(format!("apps have different publishers; who publishes {app}?"))
            .next("name the key: --publisher FILE.pub")),
    }
}

/// What the next version changes, one line each.
pub(super) fn difference(old: &TrustRoot, new: &TrustRoot) -> Vec<String> {
    let mut lines = vec![format!("version {} → {}", old.version, new.version)];
    if old.expires != new.expires {
        lines.push(format!("expires {} → {}", old.expires, new.expires));
    }
    for (id, key) in new.keys.iter().filter(|(id, _)| !old.keys.contains_key(id)) {
        lines.push(format!("+ key {} of {}", short(id), key.owner));
    }
    for (app, trust) in &new.apps {
        match old.apps.get(app) {
            None => lines.push(format!("+ app {app}, published by {}", owners(new, &trust.publishers))),
            Some(known) => {
                if known.publishers != trust.publishers {
                    let (before, after) = (owners(old, &known.publishers), owners(new, &trust.publishers));
                    lines.push(format!("app {app}: publishers {before} → {after}"));
                }
                if known.floor != trust.floor {
                    lines.push(format!("app {app}: floor {} → {}", number(known.floor), number(trust.floor)));
                }
            }
        }
    }
    for environment in new.environments.keys().filter(|name| !old.environments.contains_key(*name)) {
        lines.push(format!("+ environment {environment}, publisher-only"));
    }
    for digest in new.revoked.iter().filter(|digest| !old.revoked.contains(digest)) {
        lines.push(format!("+ revoked {digest}"));
    }
    lines
}

/// `ci (0a1b2c3d4e5f), ada (…)`
pub(crate) fn owners(root: &TrustRoot, role: &RoleKeys) -> String {
    let names: Vec<String> = role
        .keys
        .iter()
        .map(|id| {
            let owner = root.keys.get(id).map_or("nobody", |key| key.owner.as_str());
            format!("{owner} ({})", short(id))
        })
        .collect();
    let names = names.join(", ");
    if role.threshold > 1 { format!("{} of {names}", role.threshold) } else { names }
}

pub(super) fn number(number: OrderingNumber) -> String {
    if number == OrderingNumber::default() {
        return "none".into();
    }
    format!("{} (epoch {})", number.ms, number.epoch)
}

fn short(id: &Sha256) -> String {
    id.short()
}

#[cfg(test)]
mod tests {
    use consign_common::trust::{CoordinatorPin, SigningKey};

    use super::*;

    fn publisher(owner: &str) -> Publisher {
        let key = SigningKey::generate().unwrap().public();
        Publisher { owner: owner.parse().unwrap(), scheme: Scheme::Ed25519, key }
    }

    fn root() -> TrustRoot {
        let mut root = TrustRoot {
            version: 1,
            issued: UnixMs(1000),
            expires: UnixMs(100_000),
            keys: [].into(),
            root: RoleKeys { keys: vec![], threshold: 1 },
            roles: [].into(),
            apps: [].into(),
            environments: [("staging".parse().unwrap(), Gate::PublisherOnly {})].into(),
            coordinators: vec![CoordinatorPin { id: "c".repeat(32), ca_sha256: Sha256::of(b"ca") }],
            revoked: vec![],
            enrolment: None,
        };
        let owner = add_key(&mut root, publisher("ada")).unwrap();
        root.root.keys.push(owner);
        let ci = publisher("ci");
        apply(&mut root, Edit::AddApp { app: "shop".parse().unwrap(), publisher: Some(ci) }).unwrap();
        root.check().unwrap();
        root
    }

    fn one(edit: Edit) -> Result<Vec<String>> {
        let root = root();
        next(&root, vec![edit], UnixMs(2000)).map(|next| difference(&root, &next))
    }

    #[test]
    fn every_change_is_told() {
        let lines = one(Edit::AddApp { app: "blog".parse().unwrap(), publisher: None }).unwrap();
        assert!(lines[1].starts_with("+ app blog, published by ci ("), "{lines:?}");
        let lines = one(Edit::AddEnvironment("production".parse().unwrap())).unwrap();
        assert_eq!(lines, ["version 1 → 2", "+ environment production, publisher-only"]);
        let lines = one(Edit::Floor { app: "shop".parse().unwrap(), floor: UnixMs(1500) }).unwrap();
        assert_eq!(lines[1], "app shop: floor none → 1970-01-01T00:00:01Z (epoch 0)");
        let lines = one(Edit::Revoke(Sha256::of(b"x"))).unwrap();
        assert_eq!(lines[1], format!("+ revoked {}", Sha256::of(b"x")));
        let edit = Edit::AddPublisher { app: "shop".parse().unwrap(), publisher: publisher("bob") };
        let lines = one(edit).unwrap();
        assert!(lines[1].starts_with("+ key ") && lines[2].contains("→ ci ("), "{lines:?}");
        assert!(lines[2].contains(", bob ("), "{lines:?}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let shop: App = "shop".parse().unwrap();
        assert!(one(Edit::AddApp { app: shop.clone(), publisher: None }).is_err());
        assert!(one(Edit::AddEnvironment("staging".parse().unwrap())).is_err());
        assert!(one(Edit::Floor { app: "blog".parse().unwrap(), floor: UnixMs(1) }).is_err());
        assert!(one(Edit::Expires(UnixMs(2000))).unwrap_err().next.unwrap().contains("--expires"));
        let edits = vec![
            Edit::Floor { app: shop.clone(), floor: UnixMs(1500) },
            Edit::Floor { app: shop, floor: UnixMs(1400) },
        ];
        assert!(next(&root(), edits, UnixMs(2000)).unwrap_err().what.contains("never lowered"));
    }
}
