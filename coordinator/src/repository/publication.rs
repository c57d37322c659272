//! What is checked before the first byte of a pack is taken: the manifest, and that somebody who may has signed it.
//!
//! Agents check all of this again. Here it is for the publisher, who learns now and not at three in the morning.

use consign_common::{
    artifact::{EntryKind, Manifest},
    digest::Sha256,
    limits::{ArtifactLimits, ENVELOPE_BYTES, FUTURE_MS},
    name::App,
    time::UnixMs,
    trust::{Envelope, OrderingNumber, Predicate, Published, Refusal, STATEMENT_TYPE, Statement, TrustRoot},
};

use super::{
    Artifact, Repository, RepositoryError, Wanted,
    attest::signed_by,
    statements::{self, Kept},
};
use crate::{
    candidates,
    store::{Write, column::from_u64},
};

/// A manifest with its publisher's statement, both checked.
#[derive(Clone, Debug)]
pub struct Publication {
    pub(super) manifest: Vec<u8>,
    pub(super) digest: Sha256,
    pub(super) parsed: Manifest,
    pub(super) statement: Vec<u8>,
    pub(super) number: OrderingNumber,
}

/// How a publication goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The artifact was here; it has one more statement.
    Complete,
    /// The pack is wanted, from this offset.
    Wanted { upload: Sha256, offset: u64 },
}

impl Publication {
    pub fn check(
        manifest: Vec<u8>,
        statement: Vec<u8>,
        root: &TrustRoot,
        limits: &ArtifactLimits,
        now: UnixMs,
    ) -> Result<Self, RepositoryError> {
        let parsed = Manifest::parse(&manifest, limits)
            .map_err(|error| RepositoryError::Manifest(error.to_string()))?;
        let digest = Sha256::of(&manifest);
        let published = verify(&statement, &parsed, root)?;
        let (subject, published) = published;
        if subject != digest {
            return Err(Refusal::WrongSubject { manifest: digest }.into());
        }
        if (&published.app, &published.version, &published.platform)
            != (&parsed.app, &parsed.version, &parsed.platform)
        {
            return Err(RepositoryError::Statement(
                "the statement's app, version or platform is not the manifest's",
            ));
        }
        let number = published.number;
        let Some(app) = root.apps.get(&parsed.app) else {
            return Err(Refusal::AppUnknown { app: parsed.app }.into());
        };
        if number.epoch != app.epoch {
            return Err(Refusal::WrongEpoch { given: number.epoch, current: app.epoch }.into());
        }
        if number < app.floor {
            return Err(Refusal::BelowFloor { number, floor: app.floor }.into());
        }
        if number.ms.0 > now.0.saturating_add(FUTURE_MS) {
            return Err(Refusal::FarFuture { number, now }.into());
        }
        if root.revoked.contains(&digest) {
            return Err(Refusal::Revoked { manifest: digest }.into());
        }
        Ok(Self { manifest, digest, parsed, statement, number })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.parsed
    }

    pub(super) fn entries(&self) -> u64 {
        self.parsed.entries.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        let size = |kind: &EntryKind| match kind {
            EntryKind::File { size, .. } => *size,
            EntryKind::Dir | EntryKind::Link { .. } => 0,
        };
        self.parsed.entries.iter().map(|entry| size(&entry.kind)).sum()
    }
}

/// The publication, if publishers of the manifest's app signed it: its subject and what it says.
fn verify(
    statement: &[u8],
    manifest: &Manifest,
    root: &TrustRoot,
) -> Result<(Sha256, Published), RepositoryError> {
    let envelope = Envelope::parse(statement, ENVELOPE_BYTES)?;
    let app =
        root.apps.get(&manifest.app).ok_or_else(|| Refusal::AppUnknown { app: manifest.app.clone() })?;
    let payload = envelope.verified_by("the publication", &app.publishers, &root.keys)?;
    if envelope.payload_type() != STATEMENT_TYPE {
        return Err(RepositoryError::Statement("the envelope does not hold an in-toto statement"));
    }
    let statement = Statement::parse(payload)?;
    match statement.predicate {
        Predicate::Published(published) => Ok((statement.subject.sha256, published)),
        Predicate::Approval(_)
        | Predicate::Config(_)
        | Predicate::Enrolled(_)
        | Predicate::Decision(_)
        | Predicate::Foreign { .. } => Err(RepositoryError::Statement("the statement is not a publication")),
    }
}

impl Repository {
    /// Checks a publication, and says which bytes of its pack are wanted.
    pub async fn begin(
        &self,
        manifest: Vec<u8>,
        statement: Vec<u8>,
        pack: (u64, Sha256),
        now: UnixMs,
    ) -> Result<Begun, RepositoryError> {
        let (length, sha256) = pack;
        let limit = self.limits.total_bytes.saturating_add(self.limits.total_bytes / 64);
        if length > limit {
            return Err(RepositoryError::PackTooLong { given: length, limit });
        }
        let root = self.trust_roots.newest();
        let publication = Publication::check(manifest, statement, &root, &self.limits, now)?;
        if self.published(&publication).await?.is_some() {
            let Publication { digest, statement, parsed, .. } = &publication;
            self.add_statement(*digest, statement, &parsed.app).await?;
            return Ok(Begun::Complete);
        }
        let (upload, offset) = self.open_upload(&publication, length, sha256).await?;
        Ok(Begun::Wanted { upload, offset })
    }

    /// The artifact, if it is here; an error, if its version is here with other content.
    pub(super) async fn published(
        &self,
        publication: &Publication,
    ) -> Result<Option<Artifact>, RepositoryError> {
        let Manifest { app, version, platform, .. } = &publication.parsed;
        let all = self.list(Some(app)).await?;
        let same = all.into_iter().find(|known| known.version == *version && known.platform == *platform);
        match same {
            Some(known) if known.digest != publication.digest => Err(RepositoryError::VersionExists {
                app: app.clone(),
                version: version.clone(),
                platform: platform.clone(),
                digest: known.digest,
            }),
            other => Ok(other),
        }
    }

    /// A statement more about an artifact that is here: "deploy this once more".
    pub(super) async fn add_statement(
        &self,
        digest: Sha256,
        envelope: &[u8],
        app: &App,
    ) -> Result<(), RepositoryError> {
        let _changing = self.changing.lock().await;
        self.find(&Wanted::Digest(digest)).await?;
        let mut write = self.store.write().await?;
        self.put_publication(&mut write, digest, envelope, app).await?;
        write.commit().await?;
        Ok(())
    }

    /// A publication that was checked when it came.
    pub(super) async fn put_publication(
        &self,
        write: &mut Write,
        digest: Sha256,
        envelope: &[u8],
        app: &App,
    ) -> Result<(), RepositoryError> {
        let Some((parsed, statement)) =
            statements::reread(envelope).filter(|(_, it)| it.subject.sha256 == digest)
        else {
            tracing::warn!(artifact = %digest, "this is no statement about it");
            return Ok(());
        };
        let root = self.trust_roots.newest();
        let publishers = root.apps.get(app).into_iter().flat_map(|app| app.publishers.keys.iter().copied());
        let signers = signed_by(&parsed, publishers, &root);
        let kept = Kept::new(envelope.to_vec(), &statement, signers, "", self.clock.now());
        statements::put(write, &kept).await?;
        if let Some(number) = statements::newest_publication(write, digest).await? {
            sqlx::query("UPDATE artifacts SET epoch = ?, ms = ? WHERE digest = ?")
                .bind(from_u64(number.epoch))
                .bind(from_u64(number.ms.0))
                .bind(digest.to_string())
                .execute(&mut **write)
                .await?;
        }
        // With it, or not at all: no crash comes between a publication and what follows from it.
        Ok(candidates::published(write, digest, self.clock.now()).await?)
    }
}

pub(super) fn statement_name(envelope: &[u8]) -> String {
    format!("{}.json", Sha256::of(envelope))
}
