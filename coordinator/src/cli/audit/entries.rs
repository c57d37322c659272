//! The log as it comes: nothing in it is believed here.

use consign_common::{
    audit::{Entry, Head},
    digest::Sha256,
    json,
    limits::AUDIT_ENTRY_BYTES,
};
use consign_proto::v1;
use tonic::Streaming;

use crate::cli::{
    client::{Client, unary},
    failure::{Failure, Result},
};

/// An entry with the hash that is kept with it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    pub(super) hash: Sha256,
}

impl Kept {
    pub(super) fn parsed(&self) -> Result<Entry> {
        json::from_slice(&self.bytes, AUDIT_ENTRY_BYTES).map_err(|error| {
            Failure::new(format!("an entry of the audit log cannot be read: {error}"))
                .next("`consign audit verify` says which")
        })
    }
}

pub(super) struct Entries<'a> {
    client: &'a Client,
    stream: Streaming<v1::AuditEntry>,
}

pub(super) async fn read(client: &Client, request: v1::ReadAuditRequest) -> Result<Entries<'_>> {
    let stream =
        client.operators().read_audit(request).await.map_err(|status| client.failure(status))?.into_inner();
    Ok(Entries { client, stream })
}

impl Entries<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<Kept>> {
        let next = self.stream.message().await.map_err(|status| self.client.failure(status))?;
        let Some(entry) = next else { return Ok(None) };
        Ok(Some(Kept { bytes: entry.entry.into(), hash: digest(&entry.hash)? }))
    }
}

/// Where the log ends, and what agents have seen of it.
#[derive(Debug)]
pub(super) struct Heads {
    pub(super) coordinator: String,
    pub(super) head: Head,
    /// With who has seen it.
    pub(super) seen: Vec<(Head, String)>,
}

pub(super) async fn heads(client: &Client) -> Result<Heads> {
    let request = unary(v1::AuditHeadsRequest {});
    let answer = client.operators().audit_heads(request).await.map_err(|status| client.failure(status))?;
    let answer = answer.into_inner();
    let agent = |server: &str| format!("the agent of {server}");
    let mut seen = Vec::new();
    for one in &answer.seen {
        seen.push((head(one.head.as_ref())?, agent(&one.server)));
    }
    // What was disputed first stays, also where the agent has gone on since.
    for dispute in &answer.disputes {
        seen.push((head(dispute.seen.as_ref())?, agent(&dispute.server)));
    }
    Ok(Heads { coordinator: answer.coordinator, head: head(answer.head.as_ref())?, seen })
}

/// None is the beginning.
pub(crate) fn head(head: Option<&v1::AuditHead>) -> Result<Head> {
    match head {
        None => Ok(Head::START),
        Some(head) => Ok(Head { sequence: head.sequence, hash: digest(&head.hash)? }),
    }
}

fn digest(bytes: &[u8]) -> Result<Sha256> {
    <[u8; 32]>::try_from(bytes)
        .map(Sha256::from_bytes)
        .map_err(|_| Failure::new("the coordinator sent a hash that is none"))
}
