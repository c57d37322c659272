//! Between SQLite's columns and our types.

use std::{fmt::Display, str::FromStr};

use consign_common::{time::UnixMs, trust::OrderingNumber};

use super::JournalError;

/// SQLite has no unsigned integers; nothing we count comes near 2^63.
pub(super) fn from_u64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn to_u64(value: i64) -> Result<u64, JournalError> {
    u64::try_from(value).map_err(JournalError::value)
}

pub(super) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, JournalError> {
    text.parse().map_err(JournalError::value)
}

pub(super) fn number(epoch: i64, ms: i64) -> Result<OrderingNumber, JournalError> {
    Ok(OrderingNumber { epoch: to_u64(epoch)?, ms: UnixMs(to_u64(ms)?) })
}
