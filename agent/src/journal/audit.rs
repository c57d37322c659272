//! What is remembered of the coordinator's audit log.

use consign_common::{
    audit::{Compared, Head},
    crash,
    time::UnixMs,
};

use super::{
    Journal, JournalError,
    column::{from_u64, parse, to_u64},
};
use crate::ports::{Heard, Remembered};

type Row = (i64, String, Option<i64>, Option<i64>, Option<String>);

impl Journal {
    /// The newest end of this coordinator's log that was ever heard of.
    pub async fn audit_head(&self, coordinator: &str) -> Result<Option<Remembered>, JournalError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT sequence, hash, disputed_ms, disputed_sequence, disputed_hash FROM audit_heads WHERE coordinator = ?",
        )
        .bind(coordinator)
        .fetch_optional(self.pool())
        .await?;
        row.map(remembered).transpose()
    }

    /// Of whichever coordinator, for who asks locally.
    pub async fn audit_heads(&self) -> Result<Vec<(String, Remembered)>, JournalError> {
        let coordinators: Vec<String> =
            sqlx::query_scalar("SELECT coordinator FROM audit_heads ORDER BY coordinator")
                .fetch_all(self.pool())
                .await?;
        let mut heads = Vec::new();
        for coordinator in coordinators {
            if let Some(remembered) = self.audit_head(&coordinator).await? {
                heads.push((coordinator, remembered));
            }
        }
        Ok(heads)
    }

    /// The coordinator says where its log ends. What was heard before is never given up for something that does not go
    /// with it.
    pub async fn hear_audit_head(
        &self,
        coordinator: &str,
        told: Head,
        now: UnixMs,
    ) -> Result<Heard, JournalError> {
        let known = self.audit_head(coordinator).await?;
        let before = known.as_ref().map_or(Head::START, |known| known.head);
        match before.compare(told) {
            Compared::Same => Ok(Heard::GoesOn),
            Compared::Newer => {
                crash::point("audit-head-record-before");
                sqlx::query(
                    "INSERT INTO audit_heads (coordinator, sequence, hash) VALUES (?, ?, ?)
                     ON CONFLICT (coordinator) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash",
                )
                .bind(coordinator)
                .bind(from_u64(told.sequence))
                .bind(told.hash.to_string())
                .execute(self.pool())
                .await?;
                Ok(Heard::GoesOn)
            }
            Compared::Rewritten => {
                let again = known.and_then(|known| known.disputed).is_some_and(|(_, head)| head == told);
                if !again {
                    sqlx::query(
                        "UPDATE audit_heads SET disputed_ms = ?, disputed_sequence = ?, disputed_hash = ?
                         WHERE coordinator = ?",
                    )
                    .bind(from_u64(now.0))
                    .bind(from_u64(told.sequence))
                    .bind(told.hash.to_string())
                    .bind(coordinator)
                    .execute(self.pool())
                    .await?;
                }
                Ok(Heard::Rewritten { known: before, again })
            }
        }
    }
}

fn remembered((sequence, hash, ms, told, told_hash): Row) -> Result<Remembered, JournalError> {
    let disputed = match (ms, told, told_hash) {
        (Some(ms), Some(sequence), Some(hash)) => {
            Some((UnixMs(to_u64(ms)?), Head { sequence: to_u64(sequence)?, hash: parse(&hash)? }))
        }
        (Some(_) | None, _, _) => None,
    };
    Ok(Remembered { head: Head { sequence: to_u64(sequence)?, hash: parse(&hash)? }, disputed })
}

#[cfg(test)]
mod tests {
    use consign_common::digest::Sha256;

    use super::*;

    #[tokio::test]
    async fn what_was_heard_is_not_given_up_for_what_does_not_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).await.unwrap();
        let head = |sequence: u64, text: &str| Head { sequence, hash: Sha256::of(text.as_bytes()) };
        let hear = async |told, at| journal.hear_audit_head("c", told, UnixMs(at)).await.unwrap();
        assert_eq!(journal.audit_head("c").await.unwrap(), None);
        assert_eq!(hear(head(3, "three"), 1).await, Heard::GoesOn);
        assert_eq!(hear(head(5, "five"), 2).await, Heard::GoesOn);
        assert_eq!(hear(head(5, "five"), 3).await, Heard::GoesOn);

        let known = head(5, "five");
        assert_eq!(hear(head(4, "four"), 4).await, Heard::Rewritten { known, again: false });
        assert_eq!(hear(head(4, "four"), 5).await, Heard::Rewritten { known, again: true });
        assert_eq!(hear(head(5, "other"), 6).await, Heard::Rewritten { known, again: false });
        let disputed = Some((UnixMs(6), head(5, "other")));
        assert_eq!(journal.audit_head("c").await.unwrap(), Some(Remembered { head: known, disputed }));

        // It grows on; that it did not always is not forgotten.
        assert_eq!(hear(head(9, "nine"), 7).await, Heard::GoesOn);
        journal.close().await;
        let journal = Journal::open(dir.path()).await.unwrap();
        let all = journal.audit_heads().await.unwrap();
        assert_eq!(all, [("c".to_owned(), Remembered { head: head(9, "nine"), disputed })]);
        assert_eq!(journal.audit_head("other").await.unwrap(), None, "another coordinator has another log");
    }
}
