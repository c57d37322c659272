//! The allow-list: whose key may talk. It is the revocation, too: what is taken from it is refused at the next call,
//! and its open connections end.
//!
//! The database is the truth; the copy in memory answers each call without touching it. Changes go to the database
//! first and are then read back from there ([`AllowList::refresh`]), so that two changes at once cannot leave the copy
//! with the older one.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use consign_common::{digest::Sha256, name::ServerName, time::UnixMs};
use sqlx::{Row as _, sqlite::SqliteRow};
use tokio::sync::Mutex;

use super::{Apps, Caller, Connections, Identity, Role};
use crate::store::{
    Store, StoreError, Write,
    column::{from_u64, parse},
};

#[derive(Debug)]
pub struct AllowList {
    store: Arc<Store>,
    connections: Arc<Connections>,
    keys: RwLock<HashMap<Sha256, Holder>>,
    refreshing: Mutex<()>,
}

/// Who holds a key, and whether the key has been used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    caller: Caller,
    use_of_key: Use,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Never,
    Seen,
}

/// Keys that a holder may have been given without using any: more is somebody who renews in a circle.
const UNSEEN_KEYS: i64 = 4;

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT k.spki_sha256, k.seen_ms, k.server, s.uid, s.environment, k.operator, o.role,
               (SELECT group_concat(a.app, ' ') FROM operator_apps a WHERE a.operator = k.operator) AS apps
             FROM keys k LEFT JOIN servers s ON s.name = k.server LEFT JOIN operators o ON o.name = k.operator ",
            $tail
        )
    };
}

impl AllowList {
    pub async fn load(store: Arc<Store>, connections: Arc<Connections>) -> Result<Self, StoreError> {
        let rows = sqlx::query(select!("")).fetch_all(store.read()).await?;
        let keys = rows.iter().map(holder).collect::<Result<_, _>>()?;
        Ok(Self { store, connections, keys: RwLock::new(keys), refreshing: Mutex::new(()) })
    }

    /// Who holds this key now; `None`: nobody, or nobody any more.
    pub fn caller(&self, spki: Sha256, certificate_ends: UnixMs, now: UnixMs) -> Option<Caller> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut caller = keys.get(&spki)?.caller.clone();
        if certificate_ends < now {
            caller.role = Role::Expired;
        }
        Some(caller)
    }

    /// Allows a key to a holder, within the transaction that makes the holder.
    pub async fn add(
        write: &mut Write,
        spki: Sha256,
        identity: &Identity,
        certificate_ends: UnixMs,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let (server, operator) = columns(identity);
        sqlx::query(
            "INSERT INTO keys (spki_sha256, server, operator, not_after_ms, added_ms) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(spki.to_string())
        .bind(server)
        .bind(operator)
        .bind(from_u64(certificate_ends.0))
        .bind(from_u64(now.0))
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// A further key for the same holder. The old one stays until this one has been seen.
    pub async fn renew(
        &self,
        spki: Sha256,
        identity: &Identity,
        certificate_ends: UnixMs,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let (server, operator) = columns(identity);
        let mut write = self.store.write().await?;
        // The same key again: its new certificate lasts longer, that is all.
        let extended = sqlx::query(
            "UPDATE keys SET not_after_ms = ? WHERE spki_sha256 = ? AND (server IS ? AND operator IS ?)",
        )
        .bind(from_u64(certificate_ends.0))
        .bind(spki.to_string())
        .bind(server)
        .bind(operator)
        .execute(&mut *write)
        .await?;
        let mut changed = vec![spki];
        if extended.rows_affected() == 0 {
            Self::add(&mut write, spki, identity, certificate_ends, now).await?;
            let dropped = sqlx::query(
                "DELETE FROM keys WHERE seen_ms IS NULL AND server IS ? AND operator IS ? AND rowid NOT IN (
                     SELECT rowid FROM keys WHERE seen_ms IS NULL AND server IS ? AND operator IS ?
                     ORDER BY rowid DESC LIMIT ?)
                 RETURNING spki_sha256",
            )
            .bind(server)
            .bind(operator)
            .bind(server)
            .bind(operator)
            .bind(UNSEEN_KEYS)
            .fetch_all(&mut *write)
            .await?;
            changed.extend(digests(&dropped)?);
        }
        write.commit().await?;
        self.refresh(&changed).await
    }

    /// A connection with this key stands. The first one ends the holder's older keys.
    pub async fn seen(&self, spki: Sha256, now: UnixMs) -> Result<(), StoreError> {
        {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            if keys.get(&spki).is_none_or(|holder| holder.use_of_key == Use::Seen) {
                return Ok(());
            }
        }
        let mut write = self.store.write().await?;
        sqlx::query("UPDATE keys SET seen_ms = ? WHERE spki_sha256 = ? AND seen_ms IS NULL")
            .bind(from_u64(now.0))
            .bind(spki.to_string())
            .execute(&mut *write)
            .await?;
        let ended = sqlx::query(
            "DELETE FROM keys WHERE spki_sha256 IN (
                 SELECT older.spki_sha256 FROM keys older JOIN keys new ON new.spki_sha256 = ?
                 WHERE older.rowid < new.rowid AND older.server IS new.server AND older.operator IS new.operator)
             RETURNING spki_sha256",
        )
        .bind(spki.to_string())
        .fetch_all(&mut *write)
        .await?;
        let mut changed = digests(&ended)?;
        changed.push(spki);
        write.commit().await?;
        self.refresh(&changed).await
    }

    /// The keys of a holder, to be refreshed once a transaction that ends it is committed.
    pub async fn keys_of(write: &mut Write, identity: &Identity) -> Result<Vec<Sha256>, StoreError> {
        let (server, operator) = columns(identity);
        let rows = sqlx::query("SELECT spki_sha256 FROM keys WHERE server IS ? AND operator IS ?")
            .bind(server)
            .bind(operator)
            .fetch_all(&mut **write)
            .await?;
        digests(&rows)
    }

    /// Ends all connections of a server's keys, with all streams on them. The keys stay.
    pub fn end_connections(&self, server: &ServerName) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        for (spki, holder) in &*keys {
            if matches!(&holder.caller.identity, Identity::Agent { server: other, .. } if other == server) {
                self.connections.close_key(*spki);
            }
        }
    }

    /// Reads these keys from the database again, and ends the connections of those that are gone or changed hands.
    pub async fn refresh(&self, changed: &[Sha256]) -> Result<(), StoreError> {
        let _one_at_a_time = self.refreshing.lock().await;
        for spki in changed {
            let row = sqlx::query(select!("WHERE k.spki_sha256 = ?"))
                .bind(spki.to_string())
                .fetch_optional(self.store.read())
                .await?;
            let now = row.as_ref().map(holder).transpose()?.map(|(_, holder)| holder);
            let same_hands = {
                let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                let before = match &now {
                    Some(holder) => keys.insert(*spki, holder.clone()),
                    None => keys.remove(spki),
                };
                before.is_some_and(|before| Some(before.caller) == now.map(|holder| holder.caller))
            };
            if !same_hands {
                self.connections.close_key(*spki);
            }
        }
        Ok(())
    }
}

/// The `server` and `operator` columns: exactly one is set for those who can hold a key.
fn columns(identity: &Identity) -> (Option<&str>, Option<&str>) {
    match identity {
        Identity::Agent { server, .. } => (Some(server.as_str()), None),
        Identity::Operator { name } => (None, Some(name.as_str())),
        Identity::Anonymous | Identity::Local { .. } => (None, None),
    }
}

fn digests(rows: &[SqliteRow]) -> Result<Vec<Sha256>, StoreError> {
    rows.iter().map(|row| parse(row.try_get(0)?)).collect()
}

fn holder(row: &SqliteRow) -> Result<(Sha256, Holder), StoreError> {
    let server: Option<&str> = row.try_get("server")?;
    let operator: Option<&str> = row.try_get("operator")?;
    let caller = match (server, operator) {
        (Some(server), None) => Caller::new(
            Identity::Agent {
                server: parse(server)?,
                uid: parse(row.try_get("uid")?)?,
                environment: parse(row.try_get("environment")?)?,
            },
            Role::Agent,
        ),
        (None, Some(name)) => {
            let apps: Option<&str> = row.try_get("apps")?;
            let apps = apps.unwrap_or_default().split_whitespace().map(parse);
            Caller {
                identity: Identity::Operator { name: parse(name)? },
                role: parse(row.try_get("role")?)?,
                apps: Apps::of(apps.collect::<Result<Vec<_>, _>>()?),
            }
        }
        (None, None) | (Some(_), Some(_)) => return Err(StoreError::corrupt("a key without one holder")),
    };
    let seen: Option<i64> = row.try_get("seen_ms")?;
    let use_of_key = if seen.is_some() { Use::Seen } else { Use::Never };
    Ok((parse(row.try_get("spki_sha256")?)?, Holder { caller, use_of_key }))
}
