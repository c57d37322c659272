//! From our errors to gRPC's. Two codes are not used here: `PermissionDenied` and `Unauthenticated` are the access
//! layer's alone, so that whoever gets one knows that it is about who he is.

use std::{fmt, io::ErrorKind};

use consign_common::{trust::Refusal, wire::REFUSAL_METADATA};
use tonic::{Status, metadata::MetadataValue};

use crate::{
    fleet::RegistryError, operators::OperatorError, repository::RepositoryError, store::StoreError,
    trust_roots::TrustRootError,
};

/// A request that cannot be meant.
pub(super) fn invalid(error: impl fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Characters of a reason that an operator gives.
const REASON: usize = 500;

/// A reason that an operator gave.
pub(super) fn reason(text: &str) -> Result<String, Status> {
    if text.chars().count() > REASON || text.chars().any(char::is_control) {
        return Err(invalid(format!("a reason is one line of at most {REASON} characters")));
    }
    Ok(text.to_owned())
}

/// Ours to mend: the log says what it was, the caller only that it was.
pub(super) fn internal(error: &dyn fmt::Display) -> Status {
    tracing::error!(%error, "request failed");
    Status::internal("the coordinator could not do it; its log says why")
}

pub(super) fn refused(refusal: &Refusal) -> Status {
    let mut status = Status::failed_precondition(format!("{}: {refusal}", refusal.code()));
    if refusal.is_of_trust() {
        status.metadata_mut().insert(REFUSAL_METADATA, MetadataValue::from_static(refusal.code()));
    }
    status
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        internal(&error)
    }
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::Unknown { .. } => Self::not_found(error.to_string()),
            RegistryError::Store(error) => internal(error),
        }
    }
}

impl From<OperatorError> for Status {
    fn from(error: OperatorError) -> Self {
        match &error {
            OperatorError::Unknown { .. } => Self::not_found(error.to_string()),
            OperatorError::Store(error) => internal(error),
        }
    }
}

impl From<TrustRootError> for Status {
    fn from(error: TrustRootError) -> Self {
        match &error {
            TrustRootError::Refused(refusal) => refused(refusal),
            TrustRootError::None => Self::failed_precondition(error.to_string()),
            TrustRootError::Store(error) => internal(error),
        }
    }
}

impl From<RepositoryError> for Status {
    fn from(error: RepositoryError) -> Self {
        match &error {
            RepositoryError::Manifest(_)
            | RepositoryError::Statement(_)
            | RepositoryError::Pack(_)
            | RepositoryError::PackTooLong { .. }
            | RepositoryError::Ambiguous { .. } => invalid(error),
            RepositoryError::Refused(refusal) => refused(refusal),
            RepositoryError::Offset { .. }
            | RepositoryError::NotAsked { .. }
            | RepositoryError::StatementsFull { .. }
            | RepositoryError::StatementsTooLarge { .. }
            | RepositoryError::NotYourApp { .. }
            | RepositoryError::BringsApprovalsOnly => Self::failed_precondition(error.to_string()),
            RepositoryError::SignerUnknown { .. } => {
                let mut status = Self::failed_precondition(error.to_string());
                status.metadata_mut().insert(REFUSAL_METADATA, MetadataValue::from_static("signer-unknown"));
                status
            }
            RepositoryError::VersionExists { .. } => Self::already_exists(error.to_string()),
            RepositoryError::UploadUnknown { .. } | RepositoryError::Unknown { .. } => {
                Self::not_found(error.to_string())
            }
            RepositoryError::UploadBusy => Self::aborted(error.to_string()),
            RepositoryError::Io { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                tracing::error!(%error, "no space left");
                Self::resource_exhausted("the coordinator's disk is full; what was uploaded is kept")
            }
            RepositoryError::Io { .. } => internal(&error),
            RepositoryError::Store(error) => internal(error),
        }
    }
}
