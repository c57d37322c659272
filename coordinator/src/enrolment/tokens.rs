//! Tokens: made by an admin, worth one enrolment, for one name, until an hour. Only a digest of the secret is kept.

use std::{net::SocketAddr, sync::Arc};

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Id, Owner, ServerName},
    time::UnixMs,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use sqlx::{Row as _, sqlite::SqliteRow};

use crate::{
    grpc::Role,
    store::{
        Store, StoreError, Write,
        column::{from_u64, parse, to_u64},
    },
};

#[derive(Clone, Debug)]
pub struct Tokens {
    store: Arc<Store>,
}

/// Whom a token makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    Agent {
        server: ServerName,
        environment: Environment,
    },
    /// Apps: none for every one.
    Operator {
        name: Owner,
        role: Role,
        apps: Vec<App>,
    },
}

#[derive(Clone, Debug)]
pub struct NewToken {
    pub grant: Grant,
    /// The name may be known already; its old identity ends when the token is used.
    pub replaces: bool,
    pub created_by: String,
    pub created: UnixMs,
    pub expires: UnixMs,
}

pub struct CreatedToken {
    pub id: Id,
    pub secret: [u8; 32],
}

/// A token that is valid and unused, as far as has been seen outside the transaction that uses it.
#[derive(Clone, Debug)]
pub struct Token {
    pub id: Id,
    pub grant: Grant,
    replaces: bool,
    pub created_by: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    #[error("token-unknown: there is no such token; ask for a new one")]
    Unknown,
    #[error("token-used: this token was used already; ask for a new one, and find out who used it")]
    Used,
    #[error("token-expired: this token expired at {at}; ask for a new one")]
    Expired { at: UnixMs },
    #[error("wrong-name: this token is not for {given:?}")]
    WrongName { given: String },
    #[error("wrong-environment: this token is not for {given:?}")]
    WrongEnvironment { given: String },
    #[error("name-taken: {name} is enrolled already; make a token with --replace to give the name away")]
    NameTaken { name: String },
    #[error("no randomness")]
    Random,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for TokenRefusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Tokens {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    pub async fn create(&self, new: &NewToken) -> Result<CreatedToken, TokenRefusal> {
        let random = SystemRandom::new();
        let (mut id, mut secret) = ([0; 16], [0; 32]);
        random.fill(&mut id).map_err(|_| TokenRefusal::Random)?;
        random.fill(&mut secret).map_err(|_| TokenRefusal::Random)?;
        let id = Id::from_bytes(id);
        let mut write = self.store.write().await?;
        if !new.replaces {
            check_free(&mut write, &new.grant).await?;
        }
        // Tokens that ended long ago are of no use to anybody.
        sqlx::query("DELETE FROM tokens WHERE expires_ms < ?")
            .bind(from_u64(new.created.0.saturating_sub(FORGET_MS)))
            .execute(&mut *write)
            .await?;
        let (name, environment, role) = match &new.grant {
            Grant::Agent { server, environment } => (server.as_str(), environment.as_str(), Role::Agent),
            Grant::Operator { name, role, .. } => (name.as_str(), "", *role),
        };
        let apps: &[App] = match &new.grant {
            Grant::Agent { .. } => &[],
            Grant::Operator { apps, .. } => apps,
        };
        let apps = serde_json::to_string(apps).map_err(StoreError::corrupt)?;
        sqlx::query(
            "INSERT INTO tokens (id, secret_sha256, name, environment, role, replaces, created_by, created_ms,
                                 expires_ms, apps) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.as_str())
        .bind(Sha256::of(&secret).to_string())
        .bind(name)
        .bind(environment)
        .bind(role.as_str())
        .bind(new.replaces)
        .bind(&new.created_by)
        .bind(from_u64(new.created.0))
        .bind(from_u64(new.expires.0))
        .bind(apps)
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(CreatedToken { id, secret })
    }

    /// Checks everything but whether somebody else is using it at this moment; that is [`Tokens::spend`]'s.
    pub async fn check(
        &self,
        id: &str,
        secret: &[u8],
        name: &str,
        environment: &str,
        from: SocketAddr,
        now: UnixMs,
    ) -> Result<Token, TokenRefusal> {
        let row = sqlx::query("SELECT * FROM tokens WHERE id = ?")
            .bind(id)
            .fetch_optional(self.store.read())
            .await?
            .ok_or(TokenRefusal::Unknown)?;
        let stored: Sha256 = parse(row.try_get("secret_sha256")?)?;
        if !equal(stored.as_bytes(), Sha256::of(secret).as_bytes()) {
            tracing::warn!(token = id, %from, "enrolment refused: wrong secret");
            return Err(TokenRefusal::Unknown);
        }
        if let Some(first) = row.try_get::<Option<&str>, _>("used_from")? {
            tracing::warn!(token = id, first, again = %from, "enrolment refused: the token was used before");
            return Err(TokenRefusal::Used);
        }
        let expires = UnixMs(to_u64(row.try_get("expires_ms")?));
        if expires < now {
            return Err(TokenRefusal::Expired { at: expires });
        }
        let token = token(&row)?;
        let shown = |text: &str| text.chars().take(80).collect::<String>();
        let (own_name, own_environment) = match &token.grant {
            Grant::Agent { server, environment } => (server.as_str(), environment.as_str()),
            Grant::Operator { name, .. } => (name.as_str(), ""),
        };
        if name != own_name {
            return Err(TokenRefusal::WrongName { given: shown(name) });
        }
        if environment != own_environment {
            return Err(TokenRefusal::WrongEnvironment { given: shown(environment) });
        }
        Ok(token)
    }

    /// Uses the token up, in the transaction that makes the identity: of any number at once exactly one succeeds.
    pub async fn spend(
        write: &mut Write,
        token: &Token,
        from: SocketAddr,
        now: UnixMs,
    ) -> Result<(), TokenRefusal> {
        let used =
            sqlx::query("UPDATE tokens SET used_ms = ?, used_from = ? WHERE id = ? AND used_ms IS NULL")
                .bind(from_u64(now.0))
                .bind(from.to_string())
                .bind(token.id.as_str())
                .execute(&mut **write)
                .await?;
        if used.rows_affected() == 0 {
            let (first,): (String,) = sqlx::query_as("SELECT used_from FROM tokens WHERE id = ?")
                .bind(token.id.as_str())
                .fetch_one(&mut **write)
                .await?;
            tracing::warn!(token = %token.id, first, again = %from, "enrolment refused: the token was used before");
            return Err(TokenRefusal::Used);
        }
        if !token.replaces {
            check_free(write, &token.grant).await?;
        }
        Ok(())
    }
}

/// How long used and expired tokens stay, so that a late second use is still told from a wrong one.
const FORGET_MS: u64 = 30 * 24 * 3600 * 1000;

async fn check_free(write: &mut Write, grant: &Grant) -> Result<(), TokenRefusal> {
    let (query, name) = match grant {
        Grant::Agent { server, .. } => ("SELECT 1 FROM servers WHERE name = ?", server.as_str()),
        Grant::Operator { name, .. } => ("SELECT 1 FROM operators WHERE name = ?", name.as_str()),
    };
    match sqlx::query(query).bind(name).fetch_optional(&mut **write).await? {
        Some(_) => Err(TokenRefusal::NameTaken { name: name.to_owned() }),
        None => Ok(()),
    }
}

fn token(row: &SqliteRow) -> Result<Token, StoreError> {
    let role: Role = parse(row.try_get("role")?)?;
    let name: &str = row.try_get("name")?;
    let grant = if role == Role::Agent {
        Grant::Agent { server: parse(name)?, environment: parse(row.try_get("environment")?)? }
    } else {
        let apps: &str = row.try_get("apps")?;
        let apps = serde_json::from_str(apps).map_err(StoreError::corrupt)?;
        Grant::Operator { name: parse(name)?, role, apps }
    };
    Ok(Token {
        id: parse(row.try_get("id")?)?,
        grant,
        replaces: row.try_get("replaces")?,
        created_by: row.try_get("created_by")?,
    })
}

/// In a time that does not depend on where they differ.
fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    std::hint::black_box(left.iter().zip(right).fold(0, |all, (a, b)| all | (a ^ b))) == 0
}

impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedToken").field("id", &self.id).finish_non_exhaustive()
    }
}
