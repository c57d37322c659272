//! Who calls. Every request that reaches a service carries a [`Caller`] in its extensions; the access layer put it there.

use std::{collections::BTreeSet, fmt, str::FromStr};

use consign_common::name::{App, Environment, Id, Owner, ServerName};
use tonic::Status;

/// What a caller may do; the table is in `grpc/roles.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// No certificate: only on the enrolment port.
    Anonymous,
    /// A key that is allowed, with a certificate that has ended.
    Expired,
    Agent,
    Viewer,
    Deployer,
    Ci,
    Admin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    Anonymous,
    Agent {
        server: ServerName,
        uid: Id,
        environment: Environment,
    },
    Operator {
        name: Owner,
    },
    /// A user of the coordinator's own machine, over the unix socket.
    Local {
        uid: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub identity: Identity,
    pub role: Role,
    pub apps: Apps,
}

/// The apps that somebody may publish, attest and roll out, as far as the role lets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Apps {
    #[default]
    All,
    Only(BTreeSet<App>),
}

impl Apps {
    /// None listed: every one.
    pub fn of(listed: impl IntoIterator<Item = App>) -> Self {
        let listed: BTreeSet<App> = listed.into_iter().collect();
        if listed.is_empty() { Self::All } else { Self::Only(listed) }
    }

    pub fn has(&self, app: &App) -> bool {
        match self {
            Self::All => true,
            Self::Only(apps) => apps.contains(app),
        }
    }
}

impl Caller {
    /// For who may do with every app what the role says.
    pub fn new(identity: Identity, role: Role) -> Self {
        Self { identity, role, apps: Apps::All }
    }

    pub(super) fn check_app(&self, app: &App) -> Result<(), Status> {
        match &self.apps {
            Apps::Only(apps) if !apps.contains(app) => {
                let own: Vec<&str> = apps.iter().map(App::as_str).collect();
                Err(Status::failed_precondition(format!(
                    "not-your-app: {} is for {} and not for {app}; an admin gives it more with `consign operator add --replace --app`",
                    self.identity,
                    own.join(", ")
                )))
            }
            Apps::All | Apps::Only(_) => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no role; there are agent (servers), viewer, deployer, ci and admin")]
pub struct InvalidRole {
    pub given: String,
}

impl Role {
    pub const ALL: [Self; 7] =
        [Self::Anonymous, Self::Expired, Self::Agent, Self::Viewer, Self::Deployer, Self::Ci, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Expired => "expired",
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Ci => "ci",
            Self::Admin => "admin",
        }
    }
}

/// The roles that can be given; `anonymous` and `expired` are states.
impl FromStr for Role {
    type Err = InvalidRole;
    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        [Self::Agent, Self::Viewer, Self::Deployer, Self::Ci, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| InvalidRole { given: text.chars().take(80).collect() })
    }
}

/// As shown to people and kept as `started_by`, `disabled_by`, `added_by`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Agent { server, .. } => write!(f, "server {server}"),
            Self::Operator { name } => f.write_str(name.as_str()),
            Self::Local { uid } => write!(f, "local user {uid}"),
        }
    }
}
