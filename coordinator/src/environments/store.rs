//! What was applied, and who did what.

use std::collections::BTreeMap;

use consign_common::{json, name::Environment, time::UnixMs};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{Change, Settings, changes};
use crate::store::{
    StoreError, Write,
    column::{from_u64, parse, to_u64},
};

/// Settings that we wrote ourselves.
const OWN_JSON_BYTES: usize = 1 << 20;
/// Lines of an environment's history that are shown.
const SHOWN: u32 = 50;

/// An environment as it was applied last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub settings: Settings,
    /// Zero: never.
    pub at: UnixMs,
    pub by: String,
}

/// What somebody did to an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub at: UnixMs,
    pub who: String,
    pub what: String,
    pub because: String,
}

/// All that were ever applied.
pub async fn list<'e>(db: impl SqliteExecutor<'e>) -> Result<BTreeMap<Environment, Applied>, StoreError> {
    let rows = sqlx::query("SELECT * FROM environments").fetch_all(db).await?;
    rows.iter().map(|row| Ok((parse(row.try_get("name")?)?, applied(row)?))).collect()
}

/// Defaults, where nothing was ever applied.
pub async fn find<'e>(db: impl SqliteExecutor<'e>, name: &Environment) -> Result<Applied, StoreError> {
    let row = sqlx::query("SELECT * FROM environments WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map_or_else(|| Ok(Applied::default()), applied)
}

/// All of them or none. What is not among them stays as it is. Gives what is different now.
pub async fn apply(
    write: &mut Write,
    all: &BTreeMap<Environment, Settings>,
    by: &str,
    now: UnixMs,
) -> Result<Vec<Change>, StoreError> {
    let mut changed = Vec::new();
    for (name, settings) in all {
        let before = find(&mut **write, name).await?;
        let differs = changes(name, &before.settings, settings);
        // Applied again without a change, it says who meant it so.
        sqlx::query(
            "INSERT OR REPLACE INTO environments (name, settings, applied_ms, applied_by) VALUES (?, ?, ?, ?)",
        )
        .bind(name.as_str())
        .bind(serde_json::to_string(settings).map_err(StoreError::corrupt)?)
        .bind(from_u64(now.0))
        .bind(by)
        .execute(&mut **write)
        .await?;
        if !differs.is_empty() {
            let because = differs.iter().map(line).collect::<Vec<_>>().join("; ");
            let noted = Noted { at: now, who: by.to_owned(), what: "apply".to_owned(), because };
            note(write, name, &noted).await?;
        }
        changed.extend(differs);
    }
    Ok(changed)
}

fn line(change: &Change) -> String {
    let or_none = |text: &str| if text.is_empty() { "not set".to_owned() } else { text.to_owned() };
    format!("{}: {} instead of {}", change.setting, or_none(&change.after), or_none(&change.before))
}

pub async fn note(write: &mut Write, environment: &Environment, noted: &Noted) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO environment_history (environment, at_ms, who, what, because) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(environment.as_str())
    .bind(from_u64(noted.at.0))
    .bind(&noted.who)
    .bind(&noted.what)
    .bind(&noted.because)
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// The newest lines, oldest first.
pub async fn history<'e>(
    db: impl SqliteExecutor<'e>,
    environment: &Environment,
) -> Result<Vec<Noted>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM (SELECT * FROM environment_history WHERE environment = ? ORDER BY number DESC LIMIT ?)
         ORDER BY number",
    )
    .bind(environment.as_str())
    .bind(SHOWN)
    .fetch_all(db)
    .await?;
    let noted = |row: &SqliteRow| {
        Ok(Noted {
            at: UnixMs(to_u64(row.try_get("at_ms")?)),
            who: row.try_get("who")?,
            what: row.try_get("what")?,
            because: row.try_get("because")?,
        })
    };
    rows.iter().map(noted).collect()
}

fn applied(row: &SqliteRow) -> Result<Applied, StoreError> {
    let settings: &str = row.try_get("settings")?;
    Ok(Applied {
        settings: json::from_slice(settings.as_bytes(), OWN_JSON_BYTES).map_err(StoreError::corrupt)?,
        at: UnixMs(to_u64(row.try_get("applied_ms")?)),
        by: row.try_get("applied_by")?,
    })
}
