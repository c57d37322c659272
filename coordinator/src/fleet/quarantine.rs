//! Servers behind whose identity more than one agent may be: a cloned machine, a copy of a disk, a snapshot that was gone
//! back to. Which of them is the server, only a person can say.

use consign_common::{audit::About, name::ServerName, time::UnixMs};
use sqlx::Row as _;

use super::{JournalMark, Quarantine, Registry, RegistryError, registry::unknown};
use crate::{
    audit::{self, Act},
    store::{
        Write,
        column::{from_u64, to_u64},
    },
};

/// What a hello comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    Welcome,
    StillQuarantined(Quarantine),
    /// By what this hello said.
    NowQuarantined(Quarantine),
}

/// What a person's word came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifted {
    WasNone,
    /// The server was enrolled anew since: the old key, and with it the other agent, is out.
    EnrolledAnew(Quarantine),
    /// By a reason: the journal that comes next is taken as it is.
    ByReason(Quarantine),
    /// It needs one of the two.
    NeedsReason(Quarantine),
}

impl Registry {
    /// From now on, if it is not already; its sessions are the caller's to end.
    pub async fn quarantine(
        &self,
        name: &ServerName,
        because: &str,
        now: UnixMs,
    ) -> Result<Quarantine, RegistryError> {
        let mut write = self.store.write().await?;
        let quarantine = match found(&mut write, name).await? {
            Found { quarantine: Some(quarantine), .. } => quarantine,
            Found { quarantine: None, .. } => begin(&mut write, name, because.to_owned(), now).await?,
        };
        write.commit().await?;
        Ok(quarantine)
    }

    pub async fn quarantine_of(&self, name: &ServerName) -> Result<Option<Quarantine>, RegistryError> {
        let row = sqlx::query("SELECT quarantined, quarantined_ms FROM servers WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(self.store.read())
            .await?;
        Ok(quarantine(&row.ok_or_else(|| unknown(name))?)?)
    }

    pub async fn lift_quarantine(&self, name: &ServerName, reason: &str) -> Result<Lifted, RegistryError> {
        let mut write = self.store.write().await?;
        let lifted = match found(&mut write, name).await? {
            Found { quarantine: None, .. } => return Ok(Lifted::WasNone),
            Found { quarantine: Some(quarantine), identity: Since::Anew, .. } => {
                Lifted::EnrolledAnew(quarantine)
            }
            Found { quarantine: Some(quarantine), .. } if reason.is_empty() => {
                return Ok(Lifted::NeedsReason(quarantine));
            }
            Found { quarantine: Some(quarantine), .. } => Lifted::ByReason(quarantine),
        };
        sqlx::query(
            "UPDATE servers SET quarantined = '', quarantined_ms = 0, quarantined_uid = '', journal = '',
                    journal_position = 0 WHERE name = ?",
        )
        .bind(name.as_str())
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(lifted)
    }
}

/// What is known of a server before its agent's hello is believed.
struct Found {
    quarantine: Option<Quarantine>,
    identity: Since,
    journal: JournalMark,
}

/// The identity, against that at the quarantine.
enum Since {
    Same,
    Anew,
}

async fn found(write: &mut Write, name: &ServerName) -> Result<Found, RegistryError> {
    let row = sqlx::query(
        "SELECT quarantined, quarantined_ms, quarantined_uid <> uid AS anew, journal, journal_position
         FROM servers WHERE name = ?",
    )
    .bind(name.as_str())
    .fetch_optional(&mut **write)
    .await?
    .ok_or_else(|| unknown(name))?;
    Ok(Found {
        quarantine: quarantine(&row)?,
        identity: if row.try_get("anew")? { Since::Anew } else { Since::Same },
        journal: JournalMark {
            id: row.try_get("journal")?,
            position: to_u64(row.try_get("journal_position")?),
        },
    })
}

/// Within the transaction that takes the hello.
pub(super) async fn greet(
    write: &mut Write,
    name: &ServerName,
    told: &JournalMark,
    now: UnixMs,
) -> Result<Greeting, RegistryError> {
    let found = found(write, name).await?;
    if let Some(quarantine) = found.quarantine {
        return Ok(Greeting::StillQuarantined(quarantine));
    }
    match doubt(&found.journal, told) {
        None => Ok(Greeting::Welcome),
        Some(because) => Ok(Greeting::NowQuarantined(begin(write, name, because, now).await?)),
    }
}

async fn begin(
    write: &mut Write,
    name: &ServerName,
    because: String,
    now: UnixMs,
) -> Result<Quarantine, RegistryError> {
    sqlx::query(
        "UPDATE servers SET quarantined = ?, quarantined_ms = ?, quarantined_uid = uid WHERE name = ?",
    )
    .bind(&because)
    .bind(from_u64(now.0))
    .bind(name.as_str())
    .execute(&mut **write)
    .await?;
    let mut act = Act::by_itself("server quarantine", now);
    act.about(About::Server, name).because(&because);
    audit::record(write, act).await?;
    Ok(Quarantine { because, since: now })
}

/// Why this journal cannot be the one that was seen before. An agent that cannot read its own says nothing, and is not
/// doubted for that.
fn doubt(seen: &JournalMark, told: &JournalMark) -> Option<String> {
    if seen.id.is_empty() || told.id.is_empty() {
        return None;
    }
    if seen.id != told.id {
        return Some(
            "its agent came with another journal under the same key: a copy of its identity elsewhere, or its state \
             was removed"
                .to_owned(),
        );
    }
    (told.position < seen.position).then(|| {
        format!(
            "its agent's journal ends at event {} and had {} before: an old copy of its disk, or a snapshot that was \
             gone back to",
            told.position, seen.position
        )
    })
}

pub(super) fn quarantine(row: &sqlx::sqlite::SqliteRow) -> Result<Option<Quarantine>, sqlx::Error> {
    let because: String = row.try_get("quarantined")?;
    let since = UnixMs(to_u64(row.try_get("quarantined_ms")?));
    Ok((!because.is_empty()).then_some(Quarantine { because, since }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_journal_that_goes_on_is_believed() {
        let mark = |id: &str, position| JournalMark { id: id.into(), position };
        assert_eq!(doubt(&mark("", 0), &mark("a", 7)), None, "the first session");
        assert_eq!(doubt(&mark("a", 7), &mark("a", 7)), None);
        assert_eq!(doubt(&mark("a", 7), &mark("a", 9)), None);
        assert_eq!(doubt(&mark("a", 7), &mark("", 0)), None, "a journal that cannot be read");
        assert!(doubt(&mark("a", 7), &mark("a", 6)).unwrap().contains("ends at event 6 and had 7"));
        assert!(doubt(&mark("a", 7), &mark("b", 9)).unwrap().contains("another journal"));
    }
}
