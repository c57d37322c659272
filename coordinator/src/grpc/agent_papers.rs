//! What an agent signs and remembers, and says when it connects: its receipts, and the end of the audit log that it saw.

use consign_common::{crash, limits::RECEIPT_BYTES, name::ServerName, time::UnixMs};
use consign_proto::v1;
use tonic::Status;

use super::{agents::Shown, audit};
use crate::{
    audit::{
        heads,
        receipts::{self, NotTaken},
    },
    store::Store,
};

/// What the hello says of both. What is wrong with it keeps no server from being deployed to: it is said, and remembered.
pub(super) async fn introduce(
    store: &Store,
    server: &ServerName,
    shown: &Shown,
    hello: &v1::Hello,
    now: UnixMs,
) -> Result<(), Status> {
    if let Some(seen) = audit::seen(hello.audit.as_ref())?
        && let Some(dispute) = heads::compare(store, server, seen, now).await?
    {
        tracing::error!(%server, dispute = heads::words(&dispute), "the audit log was rewritten, or restored from a backup");
    }
    if hello.receipt_key.is_empty() {
        return Ok(());
    }
    match receipts::put_key(store, server, shown.spki, &hello.receipt_key, now).await {
        Ok(()) => Ok(()),
        Err(NotTaken::Store(error)) => Err(error.into()),
        Err(
            error @ (NotTaken::Refused(_)
            | NotTaken::OfOther { .. }
            | NotTaken::OtherKey { .. }
            | NotTaken::Stranger { .. }
            | NotTaken::OtherDeployment { .. }
            | NotTaken::UnknownStep { .. }
            | NotTaken::TooManyUnknown { .. }),
        ) => {
            tracing::warn!(%server, %error, "the key of its receipts is not taken");
            Ok(())
        }
    }
}

/// Where the log ends now.
pub(super) async fn head(store: &Store) -> Result<v1::AuditHead, Status> {
    Ok(audit::head(crate::audit::head(store.read()).await?))
}

/// Keeps a receipt. One that cannot be taken is not acknowledged, and the session goes on.
pub(super) async fn take(
    store: &Store,
    server: &ServerName,
    shown: &Shown,
    receipt: &v1::Receipt,
    now: UnixMs,
) -> Result<Option<v1::ReceiptAck>, Status> {
    crash::point("receipt-received");
    if receipt.envelope.len() > RECEIPT_BYTES {
        tracing::warn!(%server, "a receipt that is longer than one may be");
        return Ok(None);
    }
    match receipts::put(store, server, &shown.address.to_string(), &receipt.envelope, now).await {
        Ok(receipt) => Ok(Some(v1::ReceiptAck { deployment: receipt.deployment.to_string() })),
        Err(NotTaken::Store(error)) => Err(error.into()),
        Err(
            error @ (NotTaken::Refused(_)
            | NotTaken::OfOther { .. }
            | NotTaken::OtherKey { .. }
            | NotTaken::Stranger { .. }
            | NotTaken::OtherDeployment { .. }
            | NotTaken::UnknownStep { .. }
            | NotTaken::TooManyUnknown { .. }),
        ) => {
            tracing::warn!(%server, %error, "a receipt is not taken");
            Ok(None)
        }
    }
}
