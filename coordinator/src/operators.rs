//! Operators' rows: people and pipelines with identities of their own.

use std::sync::Arc;

use consign_common::{
    digest::Sha256,
    name::{App, Owner},
    time::UnixMs,
};
use sqlx::Row as _;

use crate::{
    grpc::{AllowList, Identity, Role},
    store::{
        Store, StoreError, Write,
        column::{from_u64, parse, to_u64},
    },
};

#[derive(Clone, Debug)]
pub struct Operators {
    store: Arc<Store>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    pub name: Owner,
    pub role: Role,
    /// None: every app.
    pub apps: Vec<App>,
    pub added_by: String,
    pub certificate_expires: UnixMs,
}

#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("there is no operator {name}; `consign operator list` shows those there are")]
    Unknown { name: Owner },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for OperatorError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Operators {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    pub async fn list(&self) -> Result<Vec<Operator>, OperatorError> {
        let rows = sqlx::query(
            "SELECT o.*, (SELECT group_concat(a.app, ' ') FROM operator_apps a WHERE a.operator = o.name) AS apps, (SELECT max(k.not_after_ms) FROM keys k WHERE k.operator = o.name) AS not_after_ms
             FROM operators o ORDER BY o.name",
        )
        .fetch_all(self.store.read())
        .await?;
        let mut operators = Vec::with_capacity(rows.len());
        for row in rows {
            let apps: Option<&str> = row.try_get("apps")?;
            operators.push(Operator {
                name: parse(row.try_get("name")?)?,
                role: parse(row.try_get("role")?)?,
                apps: apps.unwrap_or_default().split_whitespace().map(parse).collect::<Result<_, _>>()?,
                added_by: row.try_get("added_by")?,
                certificate_expires: UnixMs(to_u64(
                    row.try_get::<Option<i64>, _>("not_after_ms")?.unwrap_or(0),
                )),
            });
        }
        Ok(operators)
    }

    /// Adds an operator, or gives a known name another role; its keys end.
    pub async fn enrol(
        write: &mut Write,
        name: &Owner,
        role: Role,
        added_by: &str,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM keys WHERE operator = ?").bind(name.as_str()).execute(&mut **write).await?;
        sqlx::query("INSERT OR REPLACE INTO operators (name, role, added_by, added_ms) VALUES (?, ?, ?, ?)")
            .bind(name.as_str())
            .bind(role.as_str())
            .bind(added_by)
            .bind(from_u64(now.0))
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// What the operator is for: these apps, or with none of them every one.
    pub async fn limit(write: &mut Write, name: &Owner, apps: &[App]) -> Result<(), StoreError> {
        for app in apps {
            sqlx::query("INSERT OR IGNORE INTO operator_apps (operator, app) VALUES (?, ?)")
                .bind(name.as_str())
                .bind(app.as_str())
                .execute(&mut **write)
                .await?;
        }
        Ok(())
    }

    /// Takes the identity away; the keys to refresh the allow-list with.
    pub async fn remove(&self, name: &Owner) -> Result<Vec<Sha256>, OperatorError> {
        let mut write = self.store.write().await?;
        let keys = AllowList::keys_of(&mut write, &Identity::Operator { name: name.clone() }).await?;
        let removed = sqlx::query("DELETE FROM operators WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *write)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(OperatorError::Unknown { name: name.clone() });
        }
        write.commit().await?;
        Ok(keys)
    }
}
