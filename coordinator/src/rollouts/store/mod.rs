//! Queries over rollouts, deployments, orders and the feed. Writing ones take the one writing transaction, so that what
//! the engine decided, the orders that follow and the changes that followers see become durable together or not at all.

mod behind;
mod deployments;
mod feed;
mod history;
mod orders;
mod previews;
mod rollouts;
mod servers;

pub use behind::*;
use consign_common::json;
pub use deployments::*;
pub use feed::*;
pub use history::*;
pub use orders::*;
pub use previews::*;
pub use rollouts::*;
use serde::de::DeserializeOwned;
pub use servers::*;

use crate::store::StoreError;
pub use crate::store::Write;

/// Bytes of a state or view that we wrote ourselves; a fleet of ten thousand stays far below.
const OWN_JSON_BYTES: usize = 64 << 20;

fn to_text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(StoreError::corrupt)
}

fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    json::from_slice(text.as_bytes(), OWN_JSON_BYTES).map_err(StoreError::corrupt)
}
