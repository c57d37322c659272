//! Between SQLite's columns and our types.

use std::{fmt::Display, str::FromStr};

use super::StoreError;

/// SQLite has no unsigned integers; nothing we count comes near 2^63.
pub fn from_u64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub fn to_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A value that was checked before it was written; that it is checked again here is what "hostile disk" costs.
pub fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(StoreError::corrupt)
}

pub fn parse_opt<T: FromStr<Err: Display>>(text: Option<&str>) -> Result<Option<T>, StoreError> {
    text.map(parse).transpose()
}
