//! What operators ask of the audit log and of receipts.

use std::{collections::BTreeMap, sync::Arc};

use consign_common::{
    audit::Head,
    digest::Sha256,
    name::{Environment, Id, ServerName},
    time::UnixMs,
};
use consign_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Answers,
    answer::{invalid, reason},
};
use crate::{
    audit::{self, Filter, heads, receipts},
    store::{Store, StoreError},
};

/// Entries, or receipts, that are read from the database at once.
const BATCH: u32 = 200;
const AHEAD: usize = 64;

type Envelopes = Vec<Vec<u8>>;

pub(super) fn read(
    store: Arc<Store>,
    request: v1::ReadAuditRequest,
) -> Result<Answers<v1::AuditEntry>, Status> {
    let filter = Filter {
        app: optional(&request.app)?,
        environment: optional(&request.environment)?,
        who: request.who.chars().take(200).collect(),
        since: UnixMs(request.since_ms),
    };
    let (to, entries) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut after = request.after;
        loop {
            let batch = match audit::store::after(store.read(), after, &filter, BATCH).await {
                Ok(batch) => batch,
                Err(error) => return drop(to.send(Err(Status::from(error))).await),
            };
            let is_last = batch.len() < BATCH as usize;
            for kept in batch {
                after = kept.sequence;
                let hash = kept.hash.as_bytes().to_vec().into();
                let entry = v1::AuditEntry { sequence: kept.sequence, entry: kept.entry.into(), hash };
                if to.send(Ok(entry)).await.is_err() {
                    return;
                }
            }
            if is_last {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(entries)))
}

pub(super) async fn heads(store: &Store, coordinator: &str) -> Result<v1::AuditHeadsResponse, Status> {
    let seen = heads::all(store.read()).await?.into_iter().map(|seen| v1::SeenHead {
        server: seen.server.to_string(),
        head: Some(head(seen.head)),
        seen_ms: seen.at.0,
    });
    Ok(v1::AuditHeadsResponse {
        head: Some(head(audit::head(store.read()).await?)),
        seen: seen.collect(),
        disputes: disputes(store).await?,
        coordinator: coordinator.to_owned(),
    })
}

pub(super) async fn accept(
    store: &Store,
    request: v1::AcceptAuditRequest,
) -> Result<v1::AcceptAuditResponse, Status> {
    let why = reason(&request.reason)?;
    if why.trim().is_empty() {
        return Err(invalid("another log is accepted for a reason"));
    }
    audit::note(|act| {
        act.because(&why);
    });
    let accepted = heads::accept(store).await?;
    Ok(v1::AcceptAuditResponse {
        disputes: accepted.into_iter().map(dispute).collect(),
        head: Some(head(audit::head(store.read()).await?)),
    })
}

pub(super) fn receipts(
    store: Arc<Store>,
    request: &v1::ListReceiptsRequest,
) -> Result<Answers<v1::StoredReceipt>, Status> {
    let artifact: Option<Sha256> = optional(&request.digest)?;
    let environment: Option<Environment> = optional(&request.environment)?;
    let rollout: Option<Id> = optional(&request.rollout)?;
    let (to, receipts) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(error) =
            send_receipts(&store, (artifact, environment.as_ref(), rollout.as_ref()), &to).await
        {
            drop(to.send(Err(Status::from(error))).await);
        }
    });
    Ok(Box::pin(ReceiverStream::new(receipts)))
}

async fn send_receipts(
    store: &Store,
    (artifact, environment, rollout): (Option<Sha256>, Option<&Environment>, Option<&Id>),
    to: &mpsc::Sender<Result<v1::StoredReceipt, Status>>,
) -> Result<(), StoreError> {
    // Of each server: the endorsements of its keys, and who vouched for it.
    let mut keys: BTreeMap<ServerName, (Envelopes, Envelopes)> = BTreeMap::new();
    let mut after = 0;
    loop {
        let batch = receipts::list(store.read(), artifact, environment, rollout, after, BATCH).await?;
        let is_last = batch.len() < BATCH as usize;
        for (place, stored) in batch {
            after = place;
            if !keys.contains_key(&stored.server) {
                let of_server = receipts::keys(store.read(), &stored.server).await?;
                let accepted = receipts::accepted(store.read(), &stored.server).await?;
                keys.insert(stored.server.clone(), (of_server, accepted));
            }
            let (of_server, accepted) = keys.get(&stored.server).cloned().unwrap_or_default();
            let receipt = v1::StoredReceipt {
                server: stored.server.to_string(),
                envelope: stored.envelope.into(),
                received_ms: stored.received.0,
                keys: of_server.into_iter().map(Into::into).collect(),
                accepted: accepted.into_iter().map(Into::into).collect(),
            };
            if to.send(Ok(receipt)).await.is_err() {
                return Ok(());
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

/// With what each server's agent has seen of the log.
pub(super) async fn of_servers(
    store: &Store,
    mut servers: Vec<v1::Server>,
) -> Result<Vec<v1::Server>, StoreError> {
    let seen = heads::all(store.read()).await?;
    let disputes = disputes(store).await?;
    for server in &mut servers {
        let of_server = seen.iter().find(|seen| seen.server.as_str() == server.name);
        server.audit = of_server.map(|seen| head(seen.head));
        server.audit_dispute = disputes.iter().find(|dispute| dispute.server == server.name).cloned();
    }
    Ok(servers)
}

pub(super) async fn disputes(store: &Store) -> Result<Vec<v1::AuditDispute>, StoreError> {
    Ok(heads::disputes(store.read()).await?.into_iter().map(dispute).collect())
}

pub(super) fn dispute(dispute: heads::Dispute) -> v1::AuditDispute {
    v1::AuditDispute {
        server: dispute.server.to_string(),
        seen: Some(head(dispute.seen)),
        found: dispute.found.map(|hash| hash.as_bytes().to_vec().into()).unwrap_or_default(),
        seen_ms: dispute.since.0,
    }
}

pub(super) fn head(head: Head) -> v1::AuditHead {
    v1::AuditHead { sequence: head.sequence, hash: head.hash.as_bytes().to_vec().into() }
}

/// As an agent says it; nothing where it has seen none.
pub(super) fn seen(head: Option<&v1::AuditHead>) -> Result<Option<Head>, Status> {
    let Some(head) = head.filter(|head| head.sequence > 0) else { return Ok(None) };
    let hash = <[u8; 32]>::try_from(&*head.hash).map_err(|_| invalid("a hash has 32 bytes"))?;
    Ok(Some(Head { sequence: head.sequence, hash: Sha256::from_bytes(hash) }))
}

fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Option<T>, Status> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(invalid) }
}
