//! The ends of the log that this home has seen: `audit-head.json`. Whoever rewrites the log has to rewrite them too, and
//! they are here.

use std::{collections::BTreeMap, path::PathBuf};

use consign_common::{
    audit::{Compared, Head},
    durable, json,
};
use consign_proto::v1;
use serde::{Deserialize, Serialize};

use super::entries;
use crate::cli::{
    client::Client,
    failure::{Doing as _, Result},
    print::Printer,
    profile::{Home, read},
};

const BYTES: usize = 64 << 10;
const FORMAT: &str = "consign-audit-heads-v1";
/// Heads that are kept of one coordinator: the newest, and of older ones each time the second; the first is always there.
const HEADS: usize = 32;

/// By the coordinator's id, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remembered {
    format: String,
    coordinators: BTreeMap<String, Vec<Head>>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { format: FORMAT.to_owned(), coordinators: BTreeMap::new() }
    }
}

impl Remembered {
    /// What there is; a file that cannot be read is not taken for none.
    pub(crate) fn read(home: &Home) -> Result<Self> {
        let path = path(home);
        if !path.exists() {
            return Ok(Self::default());
        }
        json::from_slice(&read(&path, BYTES as u64)?, BYTES).at("read", &path)
    }

    /// Forgets what was, for this coordinator.
    pub(crate) fn begin(coordinator: &str, head: Head) -> Self {
        Self { coordinators: [(coordinator.to_owned(), vec![head])].into(), ..Self::default() }
    }

    pub(crate) fn of(&self, coordinator: &str) -> &[Head] {
        self.coordinators.get(coordinator).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn add(&mut self, coordinator: &str, head: Head) {
        let heads = self.coordinators.entry(coordinator.to_owned()).or_default();
        heads.push(head);
        if heads.len() > HEADS {
            // Every second of those between the first and the last: what is old is kept more rarely, and never lost.
            let last = heads.len() - 1;
            let mut at = 0;
            heads.retain(|_| {
                at += 1;
                at == 1 || at > last || at % 2 == 1
            });
        }
    }

    pub(crate) fn write(&self, home: &Home) -> Result<()> {
        let path = path(home);
        durable::replace_file(&path, &json::to_vec(self), 0o600).at("write", &path)
    }
}

fn path(home: &Home) -> PathBuf {
    home.root().join("audit-head.json")
}

/// Compares where the log ends now with where this home has seen it end, and remembers it. Gives a loud word where the
/// two do not go together. A home that is not there remembers nothing.
pub(crate) async fn check(
    home: &Home,
    client: &Client,
    coordinator: &str,
    head: Head,
    printer: &Printer,
) -> Result<()> {
    if !home.root().is_dir() || coordinator.is_empty() {
        return Ok(());
    }
    let mut remembered = Remembered::read(home)?;
    let newest = remembered.of(coordinator).last().copied().unwrap_or(Head::START);
    let goes_on = match newest.compare(head) {
        Compared::Same => return Ok(()),
        Compared::Rewritten => false,
        Compared::Newer => newest == Head::START || hash_at(client, newest.sequence).await? == Some(newest),
    };
    if goes_on {
        remembered.add(coordinator, head);
        return remembered.write(home);
    }
    printer.note(&warning(newest, head))
}

/// The entry that stands there now.
async fn hash_at(client: &Client, sequence: u64) -> Result<Option<Head>> {
    let request = v1::ReadAuditRequest { after: sequence.saturating_sub(1), ..Default::default() };
    let first = entries::read(client, request).await?.next().await?;
    Ok(first.map(|kept| Head { sequence, hash: kept.hash }))
}

fn warning(seen: Head, now: Head) -> String {
    format!(
        "WARNING: THE COORDINATOR'S AUDIT LOG WAS REWRITTEN: this home has seen entry {seen}, and the log that ends at {now} \
         does not have it. Somebody changed the past, or the coordinator was restored from a backup. `consign audit verify` \
         says more; if you know why, `consign audit accept --reason WHY`"
    )
}

#[cfg(test)]
mod tests {
    use consign_common::digest::Sha256;

    use super::*;

    #[test]
    fn the_first_and_the_newest_stay_and_the_number_is_bounded() {
        let head = |sequence: u64| Head { sequence, hash: Sha256::of(&sequence.to_be_bytes()) };
        let mut remembered = Remembered::default();
        for sequence in 1..=1000 {
            remembered.add("c", head(sequence));
            let heads = remembered.of("c");
            assert!(
                heads.len() <= HEADS
                    && heads.first() == Some(&head(1))
                    && heads.last() == Some(&head(sequence))
            );
        }
        assert!(remembered.of("c").is_sorted_by_key(|head| head.sequence));
        assert!(remembered.of("other").is_empty());
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_owned());
        assert_eq!(Remembered::read(&home).unwrap(), Remembered::default());
        remembered.write(&home).unwrap();
        assert_eq!(Remembered::read(&home).unwrap(), remembered);
        std::fs::write(path(&home), "{}").unwrap();
        assert!(Remembered::read(&home).unwrap_err().what.contains("audit-head.json"));
    }
}
