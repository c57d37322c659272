//! Statements as they come in and are shown.

use consign_common::{digest::Sha256, name::Owner, time::UnixMs, trust::TrustRoot};
use consign_proto::v1;
use tonic::Status;

use super::{Caller, Role};
use crate::repository::{Attested, Bringer, Brings, Kept, Novelty, Repository};

pub(super) async fn put(
    repository: &Repository,
    caller: &Caller,
    envelope: Vec<u8>,
    now: UnixMs,
) -> Result<v1::Statement, Status> {
    let brings = match caller.role {
        Role::Viewer | Role::Anonymous | Role::Expired | Role::Agent => Brings::ApprovalsOnly,
        Role::Deployer | Role::Ci | Role::Admin => Brings::Everything,
    };
    let by = caller.identity.to_string();
    let attested = repository.attest(envelope, Bringer { name: &by, brings }, now).await?;
    Ok(told(attested))
}

pub(super) async fn list(
    repository: &Repository,
    root: &TrustRoot,
    artifact: Sha256,
) -> Result<v1::ListStatementsResponse, Status> {
    let kept = repository.kept(artifact).await?;
    let statements = kept.into_iter().map(|kept| {
        let owner = |key: &Sha256| root.keys.get(key).map(|known| (*key, known.owner.clone()));
        let signers: Vec<_> = kept.signers.iter().filter_map(owner).collect();
        statement(kept, &signers)
    });
    Ok(v1::ListStatementsResponse { statements: statements.collect() })
}

fn told(attested: Attested) -> v1::Statement {
    let novelty = match attested.novelty {
        Novelty::New => "new",
        Novelty::Known => "known",
        Novelty::Outdated => "outdated",
    };
    let mut helps: Vec<String> = attested.helps.iter().map(|(of, _)| of.to_string()).collect();
    helps.dedup();
    v1::Statement { helps, novelty: novelty.to_owned(), ..statement(attested.kept, &attested.signers) }
}

fn statement(kept: Kept, signers: &[(Sha256, Owner)]) -> v1::Statement {
    let signer =
        |(key, owner): &(Sha256, Owner)| v1::Signer { key: key.to_string(), owner: owner.to_string() };
    v1::Statement {
        digest: kept.digest.to_string(),
        artifact: kept.artifact.to_string(),
        predicate: kept.predicate,
        environment: kept.environment.map(String::from).unwrap_or_default(),
        signers: signers.iter().map(signer).collect(),
        helps: Vec::new(),
        envelope: kept.envelope.into(),
        added_by: kept.added_by,
        added_ms: kept.added.0,
        novelty: String::new(),
    }
}
