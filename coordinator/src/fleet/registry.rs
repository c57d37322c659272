//! Servers' rows. Who is connected right now is not here: that is a fact of the moment, not of the database.

use std::{collections::BTreeMap, sync::Arc};

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Id, ServerName},
    time::UnixMs,
    trust::OrderingNumber,
};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{AppReport, Enablement, Greeting, JournalMark, Report, Server, quarantine};
use crate::{
    audit::{self, Rearm},
    store::{
        Store, StoreError, Write,
        column::{from_u64, parse, parse_opt, to_u64},
    },
};

#[derive(Clone, Debug)]
pub struct Registry {
    pub(super) store: Arc<Store>,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("there is no server {name}; `consign server list` shows those there are")]
    Unknown { name: ServerName },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RegistryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A server at its enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewServer {
    pub name: ServerName,
    pub uid: Id,
    pub environment: Environment,
    pub labels: BTreeMap<String, String>,
    pub agent_version: String,
}

impl Registry {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// All servers, by name.
    pub async fn list(&self) -> Result<Vec<Server>, RegistryError> {
        let mut apps = self.apps().await?;
        let rows = sqlx::query(
            "SELECT s.*, (SELECT max(k.not_after_ms) FROM keys k WHERE k.server = s.name) AS not_after_ms,
                    (SELECT count(*) FROM unknown_deployments u WHERE u.server = s.name) AS unknown_deployments
             FROM servers s ORDER BY s.name",
        )
        .fetch_all(self.store.read())
        .await?;
        let with_apps = |row: &SqliteRow| {
            let mut server = server(row)?;
            server.apps = apps.remove(&server.name).unwrap_or_default();
            Ok(server)
        };
        rows.iter().map(with_apps).collect()
    }

    pub async fn get(&self, name: &ServerName) -> Result<Server, RegistryError> {
        let all = self.list().await?;
        all.into_iter().find(|server| server.name == *name).ok_or_else(|| unknown(name))
    }

    /// Adds a server. One of the same name is replaced: another uid, no apps, no keys, nothing seen; but what was
    /// disabled stays disabled, and what was in quarantine stays there.
    pub async fn enrol(write: &mut Write, new: &NewServer, now: UnixMs) -> Result<(), RegistryError> {
        for statement in [
            "DELETE FROM server_apps WHERE server = ?",
            "DELETE FROM keys WHERE server = ?",
            "DELETE FROM sealing_keys WHERE server = ?",
            "DELETE FROM acceptances WHERE server = ?",
        ] {
            sqlx::query(statement).bind(new.name.as_str()).execute(&mut **write).await?;
        }
        sqlx::query(
            "INSERT INTO servers (name, uid, environment, labels, enrolled_ms, agent_version)
             VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET
                 uid = excluded.uid, environment = excluded.environment, labels = excluded.labels,
                 enrolled_ms = excluded.enrolled_ms, agent_version = excluded.agent_version, last_seen_ms = 0,
                 boot_id = '', clock_offset_ms = 0, trust_root_version = 0, trust_root_error = '', journal = '',
                 journal_position = 0, document_types = '[]'",
        )
        .bind(new.name.as_str())
        .bind(new.uid.as_str())
        .bind(new.environment.as_str())
        .bind(labels_text(&new.labels))
        .bind(from_u64(now.0))
        .bind(&new.agent_version)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// An agent said hello: all that it reports replaces all that it reported before. Nothing changes by one that is not
    /// welcome, but that the server may be in quarantine after it.
    pub async fn hello(
        &self,
        name: &ServerName,
        report: &Report,
        apps: &BTreeMap<App, AppReport>,
        clock_offset_ms: i64,
        now: UnixMs,
    ) -> Result<Greeting, RegistryError> {
        let mut write = self.store.write().await?;
        let greeting = quarantine::greet(&mut write, name, &report.journal, now).await?;
        if greeting != Greeting::Welcome {
            write.commit().await?;
            return Ok(greeting);
        }
        sqlx::query(
            "UPDATE servers SET labels = ?, agent_version = ?, os = ?, arch = ?, root = ?, boot_id = ?,
                    trust_root_version = ?, clock_offset_ms = ?, last_seen_ms = ?,
                    journal = CASE WHEN ?10 = '' THEN journal ELSE ?10 END,
                    journal_position = max(journal_position, ?11), document_types = ?13 WHERE name = ?12",
        )
        .bind(labels_text(&report.labels))
        .bind(&report.agent_version)
        .bind(&report.os)
        .bind(&report.arch)
        .bind(report.root)
        .bind(&report.boot_id)
        .bind(from_u64(report.trust_root_version))
        .bind(clock_offset_ms)
        .bind(from_u64(now.0))
        .bind(&report.journal.id)
        .bind(from_u64(report.journal.position))
        .bind(name.as_str())
        .bind(serde_json::Value::from(report.document_types.clone()).to_string())
        .execute(&mut *write)
        .await?;
        let armed = armed(&mut write, name).await?;
        sqlx::query("DELETE FROM server_apps WHERE server = ?")
            .bind(name.as_str())
            .execute(&mut *write)
            .await?;
        for (app, report) in apps {
            let before = armed.get(app.as_str()).copied().unwrap_or(None);
            put_app(&mut write, name, app, report).await?;
            let change = Rearm::between(before.is_some(), report.failed.is_some());
            audit::rearm(&mut write, name, app, change, now).await?;
        }
        write.commit().await?;
        Ok(greeting)
    }

    /// A deployment ended: what the agent now has of one app.
    pub async fn set_app(
        &self,
        name: &ServerName,
        app: &App,
        report: &AppReport,
        now: UnixMs,
    ) -> Result<(), RegistryError> {
        let mut write = self.store.write().await?;
        let before = armed(&mut write, name).await?.get(app.as_str()).copied().unwrap_or(None);
        put_app(&mut write, name, app, report).await?;
        let change = Rearm::between(before.is_some(), report.failed.is_some());
        audit::rearm(&mut write, name, app, change, now).await?;
        write.commit().await?;
        Ok(())
    }

    /// A sign of life. Callers keep these rare (once a minute, and when a session ends): each is a durable write.
    pub async fn seen(
        &self,
        name: &ServerName,
        clock_offset_ms: i64,
        now: UnixMs,
    ) -> Result<(), RegistryError> {
        self.update(
            name,
            sqlx::query("UPDATE servers SET clock_offset_ms = ?, last_seen_ms = ? WHERE name = ?")
                .bind(clock_offset_ms)
                .bind(from_u64(now.0))
                .bind(name.as_str()),
        )
        .await
    }

    /// The trust root in force at the agent, and why it refused a newer one (empty: it did not).
    pub async fn trust_root_taken(
        &self,
        name: &ServerName,
        version: u64,
        error: &str,
    ) -> Result<(), RegistryError> {
        self.update(
            name,
            sqlx::query("UPDATE servers SET trust_root_version = ?, trust_root_error = ? WHERE name = ?")
                .bind(from_u64(version))
                .bind(error)
                .bind(name.as_str()),
        )
        .await
    }

    pub async fn set_enablement(
        &self,
        name: &ServerName,
        enablement: &Enablement,
    ) -> Result<(), RegistryError> {
        let (enabled, reason, by) = match enablement {
            Enablement::Enabled => (true, "", ""),
            Enablement::Disabled { reason, by } => (false, reason.as_str(), by.as_str()),
        };
        self.update(
            name,
            sqlx::query(
                "UPDATE servers SET enabled = ?, disabled_reason = ?, disabled_by = ? WHERE name = ?",
            )
            .bind(enabled)
            .bind(reason)
            .bind(by)
            .bind(name.as_str()),
        )
        .await
    }

    /// Takes its identity and all that is known of it away; the keys to refresh the allow-list with.
    pub async fn remove(&self, name: &ServerName) -> Result<Vec<Sha256>, RegistryError> {
        let mut write = self.store.write().await?;
        let keys = sqlx::query("SELECT spki_sha256 FROM keys WHERE server = ?")
            .bind(name.as_str())
            .fetch_all(&mut *write)
            .await?;
        let keys = keys.iter().map(|row| parse(row.try_get(0)?)).collect::<Result<Vec<_>, StoreError>>()?;
        let removed = sqlx::query("DELETE FROM servers WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *write)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(unknown(name));
        }
        write.commit().await?;
        Ok(keys)
    }

    async fn update(
        &self,
        name: &ServerName,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<(), RegistryError> {
        let mut write = self.store.write().await?;
        if query.execute(&mut *write).await?.rows_affected() == 0 {
            return Err(unknown(name));
        }
        write.commit().await?;
        Ok(())
    }

    async fn apps(&self) -> Result<BTreeMap<ServerName, BTreeMap<App, AppReport>>, RegistryError> {
        let mut all: BTreeMap<ServerName, BTreeMap<App, AppReport>> = BTreeMap::new();
        for row in sqlx::query("SELECT * FROM server_apps").fetch_all(self.store.read()).await? {
            let server = parse(row.try_get("server")?)?;
            let app = parse(row.try_get("app")?)?;
            all.entry(server).or_default().insert(app, app_report(&row)?);
        }
        Ok(all)
    }
}

pub(super) fn unknown(name: &ServerName) -> RegistryError {
    RegistryError::Unknown { name: name.clone() }
}

/// By app: since when its gate is re-armed on the server.
async fn armed(
    write: &mut Write,
    server: &ServerName,
) -> Result<BTreeMap<String, Option<OrderingNumber>>, StoreError> {
    let rows = sqlx::query("SELECT * FROM server_apps WHERE server = ?")
        .bind(server.as_str())
        .fetch_all(&mut **write)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("app")?, app_report(row)?.failed))).collect()
}

async fn put_app(
    write: &mut Write,
    server: &ServerName,
    app: &App,
    report: &AppReport,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO server_apps (server, app, good, good_version, before, current, epoch, ms, term,
                                             failed_epoch, failed_ms, config_sequence)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(server.as_str())
    .bind(app.as_str())
    .bind(report.good.map(|digest| digest.to_string()))
    .bind(&report.good_version)
    .bind(report.before.map(|digest| digest.to_string()))
    .bind(report.current.map(|digest| digest.to_string()))
    .bind(from_u64(report.highest.epoch))
    .bind(from_u64(report.highest.ms.0))
    .bind(from_u64(report.term))
    .bind(report.failed.map(|failed| from_u64(failed.epoch)))
    .bind(report.failed.map(|failed| from_u64(failed.ms.0)))
    .bind(from_u64(report.config_sequence))
    .execute(&mut **write)
    .await?;
    Ok(())
}

fn app_report(row: &SqliteRow) -> Result<AppReport, StoreError> {
    let digest = |column| -> Result<Option<Sha256>, StoreError> { parse_opt(row.try_get(column)?) };
    Ok(AppReport {
        good: digest("good")?,
        good_version: row.try_get("good_version")?,
        before: digest("before")?,
        current: digest("current")?,
        highest: OrderingNumber {
            epoch: to_u64(row.try_get("epoch")?),
            ms: UnixMs(to_u64(row.try_get("ms")?)),
        },
        term: to_u64(row.try_get("term")?),
        failed: match (row.try_get("failed_epoch")?, row.try_get("failed_ms")?) {
            (Some(epoch), Some(ms)) => Some(OrderingNumber { epoch: to_u64(epoch), ms: UnixMs(to_u64(ms)) }),
            (Some(_) | None, _) => None,
        },
        config_sequence: to_u64(row.try_get("config_sequence")?),
    })
}

/// All but the apps.
fn server(row: &SqliteRow) -> Result<Server, StoreError> {
    let ms = |column| -> Result<UnixMs, StoreError> { Ok(UnixMs(to_u64(row.try_get(column)?))) };
    let enablement = if row.try_get("enabled")? {
        Enablement::Enabled
    } else {
        Enablement::Disabled { reason: row.try_get("disabled_reason")?, by: row.try_get("disabled_by")? }
    };
    let labels: &str = row.try_get("labels")?;
    let document_types: &str = row.try_get("document_types")?;
    Ok(Server {
        name: parse(row.try_get("name")?)?,
        uid: parse(row.try_get("uid")?)?,
        environment: parse(row.try_get("environment")?)?,
        enablement,
        quarantine: quarantine::quarantine(row)?,
        enrolled: ms("enrolled_ms")?,
        last_seen: Some(ms("last_seen_ms")?).filter(|at| at.0 != 0),
        report: Report {
            labels: serde_json::from_str(labels).map_err(StoreError::corrupt)?,
            agent_version: row.try_get("agent_version")?,
            os: row.try_get("os")?,
            arch: row.try_get("arch")?,
            root: row.try_get("root")?,
            boot_id: row.try_get("boot_id")?,
            document_types: serde_json::from_str(document_types).map_err(StoreError::corrupt)?,
            trust_root_version: to_u64(row.try_get("trust_root_version")?),
            journal: JournalMark {
                id: row.try_get("journal")?,
                position: to_u64(row.try_get("journal_position")?),
            },
        },
        clock_offset_ms: row.try_get("clock_offset_ms")?,
        trust_root_error: row.try_get("trust_root_error")?,
        apps: BTreeMap::new(),
        unknown_deployments: to_u64(row.try_get("unknown_deployments")?),
        certificate_expires: UnixMs(to_u64(row.try_get::<Option<i64>, _>("not_after_ms")?.unwrap_or(0))),
    })
}

fn labels_text(labels: &BTreeMap<String, String>) -> String {
    serde_json::Value::from_iter(labels.iter().map(|(key, value)| (key.clone(), value.clone()))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StateDir;

    async fn registry(dir: &tempfile::TempDir) -> (Arc<Store>, Registry) {
        let store = Arc::new(Store::open(StateDir::open(dir.path()).unwrap()).await.unwrap());
        (Arc::clone(&store), Registry::new(store))
    }

    async fn enrol(store: &Store, name: &str, uid: u8) -> ServerName {
        let new = NewServer {
            name: name.parse().unwrap(),
            uid: Id::from_bytes([uid; 16]),
            environment: "production".parse().unwrap(),
            labels: BTreeMap::from([("role".into(), "web \"quoted\"".into())]),
            agent_version: "0.1.0".into(),
        };
        let mut write = store.write().await.unwrap();
        Registry::enrol(&mut write, &new, UnixMs(7)).await.unwrap();
        write.commit().await.unwrap();
        new.name
    }

    #[tokio::test]
    async fn what_an_agent_says_is_what_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (store, registry) = registry(&dir).await;
        let name = enrol(&store, "web-1", 1).await;
        let before = registry.get(&name).await.unwrap();
        assert_eq!(before.last_seen, None);
        assert_eq!(before.report.labels.get("role").unwrap(), "web \"quoted\"");

        let report = Report {
            labels: BTreeMap::from([("zone".into(), "a".into())]),
            agent_version: "0.2.0".into(),
            os: "linux".into(),
            arch: "x86_64".into(),
            root: true,
            boot_id: "boot".into(),
            document_types: vec!["a".into(), "b \"quoted\"".into()],
            trust_root_version: 3,
            journal: JournalMark { id: "j".into(), position: 5 },
        };
        let shop: App = "shop".parse().unwrap();
        let blog: App = "blog".parse().unwrap();
        let app = AppReport {
            good: Some(Sha256::of(b"good")),
            good_version: "1.0".into(),
            before: None,
            current: Some(Sha256::of(b"good")),
            highest: OrderingNumber { epoch: 1, ms: UnixMs(99) },
            term: 4,
            failed: Some(OrderingNumber { epoch: 1, ms: UnixMs(98) }),
            config_sequence: 3,
        };
        let apps = BTreeMap::from([(shop.clone(), app.clone()), (blog, AppReport::default())]);
        registry.hello(&name, &report, &apps, -301_000, UnixMs(50)).await.unwrap();
        let server = registry.get(&name).await.unwrap();
        assert_eq!((server.report.clone(), server.apps.clone()), (report.clone(), apps));
        assert_eq!(server.last_seen, Some(UnixMs(50)));
        assert!(server.has_clock_skew());

        // The next hello no longer has the blog.
        let apps = BTreeMap::from([(shop, app)]);
        registry.hello(&name, &report, &apps, 0, UnixMs(60)).await.unwrap();
        assert_eq!(registry.get(&name).await.unwrap().apps, apps);
    }

    #[tokio::test]
    async fn a_server_is_disabled_with_a_reason_and_forgotten_when_it_enrols_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (store, registry) = registry(&dir).await;
        let name = enrol(&store, "web-1", 1).await;
        let disabled = Enablement::Disabled { reason: "disk".into(), by: "ann".into() };
        registry.set_enablement(&name, &disabled).await.unwrap();
        assert_eq!(registry.get(&name).await.unwrap().enablement, disabled);
        registry
            .set_app(
                &name,
                &"shop".parse().unwrap(),
                &AppReport { term: 9, ..AppReport::default() },
                UnixMs(70),
            )
            .await
            .unwrap();
        enrol(&store, "web-1", 2).await;
        let server = registry.get(&name).await.unwrap();
        assert_eq!((&server.uid, server.apps.len()), (&Id::from_bytes([2; 16]), 0));
        assert_eq!(server.enablement, disabled);
        registry.set_enablement(&name, &Enablement::Enabled).await.unwrap();
        assert!(registry.get(&name).await.unwrap().is_enabled());

        let missing = "web-9".parse().unwrap();
        assert!(matches!(registry.seen(&missing, 0, UnixMs(1)).await, Err(RegistryError::Unknown { .. })));
    }
}
