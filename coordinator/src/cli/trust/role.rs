//! Who is meant: the roles of a trust root by the names that people write, and keys by what they are known by.

use std::{fmt, str::FromStr};

use consign_common::{
    digest::Sha256,
    name::{App, Owner},
    trust::{PublicKey, RoleKeys, Scheme, TrustRoot},
};

use crate::cli::{
    failure::{Doing as _, Failure, Result},
    key::PublicKeyFile,
};

/// A public key with its owner and scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedKey {
    pub(super) owner: Owner,
    pub(super) scheme: Scheme,
    pub(super) key: PublicKey,
}

impl NamedKey {
    pub(super) fn of(file: PublicKeyFile) -> Result<Self> {
        let key = file.key().doing(|| "public key".into())?;
        Ok(Self { owner: file.owner, scheme: file.scheme, key })
    }
}

/// `root`, `publisher of shop`, `config of shop`, `enrolment`, or a role that gates name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RoleName {
    Root,
    Publisher(App),
    Config(App),
    Enrolment,
    Gate(Owner),
}

impl FromStr for RoleName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        for word in ["publishers", "publisher", "config"] {
            let rest = text.strip_prefix(word);
            let app = rest.and_then(|rest| rest.strip_prefix(" of ").or_else(|| rest.strip_prefix(':')));
            if let Some(app) = app {
                let app: App = app.trim().parse().map_err(|error| format!("{error}"))?;
                return Ok(if word == "config" { Self::Config(app) } else { Self::Publisher(app) });
            }
        }
        match text {
            "root" => Ok(Self::Root),
            "enrolment" => Ok(Self::Enrolment),
            "publisher" | "publishers" | "config" => {
                Err(format!("say of which app: {text:?} is \"{text} of APP\""))
            }
            other => other.parse().map(Self::Gate).map_err(|error| format!("{error}")),
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Publisher(app) => write!(f, "publisher of {app}"),
            Self::Config(app) => write!(f, "config of {app}"),
            Self::Enrolment => f.write_str("enrolment"),
            Self::Gate(name) => write!(f, "{name}"),
        }
    }
}

/// Every list of keys there is, to be changed alike.
pub(super) fn all_mut(root: &mut TrustRoot) -> impl Iterator<Item = &mut RoleKeys> {
    std::iter::once(&mut root.root)
        .chain(root.roles.values_mut())
        .chain(root.apps.values_mut().map(|trust| &mut trust.publishers))
        .chain(root.enrolment.as_mut())
}

/// Where a key stands, by the names that people write.
pub(super) fn places(root: &TrustRoot, key: &Sha256) -> Vec<String> {
    let mut places = Vec::new();
    let mut look = |name: String, role: &RoleKeys| {
        if role.keys.contains(key) {
            places.push(name);
        }
    };
    look("root".into(), &root.root);
    root.roles.iter().for_each(|(name, role)| look(name.to_string(), role));
    root.apps.iter().for_each(|(app, trust)| look(format!("publisher of {app}"), &trust.publishers));
    if let Some(role) = &root.enrolment {
        look("enrolment".into(), role);
    }
    places
}

/// The one key that is known by this: an owner with one key, the beginning of an id, or the whole of it.
pub(super) fn find_key(root: &TrustRoot, known_by: &str) -> Result<Sha256> {
    const SHORTEST: usize = 6;
    let by_owner = |id: &&Sha256| root.keys.get(*id).is_some_and(|key| key.owner.as_str() == known_by);
    let by_id = |id: &&Sha256| known_by.len() >= SHORTEST && id.to_string().starts_with(known_by);
    let found: Vec<&Sha256> = match root.keys.keys().filter(by_owner).collect::<Vec<_>>() {
        none if none.is_empty() => root.keys.keys().filter(by_id).collect(),
        some => some,
    };
    let listed = |ids: &[&Sha256]| {
        let name = |id: &&Sha256| {
            root.keys.get(*id).map_or_else(String::new, |key| format!("{} ({})", key.owner, id.short()))
        };
        ids.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    match found.as_slice() {
        [id] => Ok(**id),
        [] => Err(Failure::new(format!("the trust root has no key {known_by:?}"))
            .next(format!("it has {}", listed(&root.keys.keys().collect::<Vec<_>>())))),
        several => Err(Failure::usage(format!("there are several keys {known_by:?}"))
            .next(format!("name one by its id: {}", listed(several)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_as_people_say_them() {
        let read = |text: &str| text.parse::<RoleName>();
        let shop: App = "shop".parse().unwrap();
        assert_eq!(read("root"), Ok(RoleName::Root));
        assert_eq!(read("enrolment"), Ok(RoleName::Enrolment));
        for text in ["publisher of shop", "publishers of shop", "publisher:shop"] {
            assert_eq!(read(text), Ok(RoleName::Publisher(shop.clone())), "{text}");
        }
        assert_eq!(read("config of shop"), Ok(RoleName::Config(shop)));
        assert_eq!(read("product-owners").unwrap().to_string(), "product-owners");
        assert_eq!(read("publishers-guild").unwrap().to_string(), "publishers-guild");
        for bad in ["", "publisher", "config", "publisher of", "publisher of Shop", "Root", "a b"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
