//! Removes the logs of old deployments, once the coordinator has them whole.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use consign_common::name::Id;

use crate::ports::Ledger;

/// Deployments whose directories stay, for a person who looks on the server itself.
const KEPT: usize = 20;

/// Removes `deployments/<id>` of all but the newest, never of one that is open or not whole at the coordinator.
pub async fn prune(deployments: &Path, ledger: &impl Ledger) {
    // Listed before the journal is asked, so that one which begins meanwhile is not among them.
    let directories = match list(deployments) {
        Ok(directories) => directories,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            tracing::warn!(path = %deployments.display(), %error, "old logs cannot be listed");
            return;
        }
    };
    let mut needed: BTreeSet<Id> = ledger.open_deployments().await.into_iter().collect();
    needed.extend(ledger.pending_logs().await.into_iter().map(|log| log.deployment));
    for path in superfluous(directories, &needed) {
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "old logs cannot be removed");
        }
    }
}

fn list(deployments: &Path) -> io::Result<Vec<(SystemTime, Id, PathBuf)>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(deployments)? {
        let entry = entry?;
        let name = entry.file_name();
        // What does not bear a deployment's name is not ours to remove.
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        directories.push((entry.metadata()?.modified()?, id, entry.path()));
    }
    Ok(directories)
}

fn superfluous(mut directories: Vec<(SystemTime, Id, PathBuf)>, needed: &BTreeSet<Id>) -> Vec<PathBuf> {
    directories.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    directories
        .into_iter()
        .skip(KEPT)
        .filter(|(_, id, _)| !needed.contains(id))
        .map(|(_, _, path)| path)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_and_the_needed_stay() {
        let id = |n: u8| Id::from_bytes([n; 16]);
        let directories: Vec<_> = (0..30_u8)
            .map(|n| {
                (SystemTime::UNIX_EPOCH + Duration::from_secs(n.into()), id(n), PathBuf::from(n.to_string()))
            })
            .collect();
        let mut gone = superfluous(directories, &BTreeSet::from([id(3), id(25)]));
        gone.sort();
        let expected = ["0", "1", "2", "4", "5", "6", "7", "8", "9"].map(PathBuf::from);
        assert_eq!(gone, expected);
    }
}
