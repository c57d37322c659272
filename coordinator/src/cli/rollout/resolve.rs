//! Short ids: people type the eight digits that they see.

use consign_common::name::Id;
use consign_proto::v1;

use crate::cli::{
    client::{Client, unary},
    failure::{Failure, Result},
};

const SEARCHED: u32 = 500;
const SHORTEST: usize = 4;

/// The whole id of the one rollout that begins like `given`.
pub(super) async fn resolve(client: &Client, given: &str) -> Result<String> {
    if given.parse::<Id>().is_ok() {
        return Ok(given.into());
    }
    check(given)?;
    let request = v1::ListRolloutsRequest { limit: SEARCHED, ..Default::default() };
    let answer =
        client.operators().list_rollouts(unary(request)).await.map_err(|status| client.failure(status))?;
    let ids = answer.into_inner().rollouts.into_iter().map(|rollout| rollout.id);
    only_one(given, ids.collect())
}

fn check(given: &str) -> Result<()> {
    let is_hex = given.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_hex && (SHORTEST..32).contains(&given.len()) {
        return Ok(());
    }
    Err(Failure::usage(format!("{given:?} is no rollout id: at least {SHORTEST} of its hexadecimal digits"))
        .next("`consign rollout list` shows them"))
}

fn only_one(given: &str, ids: Vec<String>) -> Result<String> {
    let mut found: Vec<String> = ids.into_iter().filter(|id| id.starts_with(given)).collect();
    match (found.pop(), found.len()) {
        (Some(id), 0) => Ok(id),
        (None, _) => Err(Failure::new(format!("no rollout's id begins with {given}"))
            .next("`consign rollout list` shows them")),
        (Some(_), others) => Err(Failure::new(format!("{} rollouts begin with {given}", others + 1))
            .next("give more digits of the id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_means_one_rollout_or_none() {
        let ids = || vec!["abcd1111".to_owned(), "abcd2222".to_owned(), "ffff0000".to_owned()];
        assert_eq!(only_one("ffff", ids()), Ok("ffff0000".into()));
        assert_eq!(only_one("abcd2", ids()), Ok("abcd2222".into()));
        assert!(only_one("abcd", ids()).unwrap_err().what.starts_with("2 rollouts"));
        assert!(only_one("1234", ids()).is_err());
    }

    #[test]
    fn what_is_no_id_is_usage() {
        for bad in ["", "abc", "shop", "ABCD", "../..", &"a".repeat(33)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
