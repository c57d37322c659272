//! What was refused: a verb that the caller's role, or a rule of trust, does not let happen. Whoever is refused all the
//! time does not fill the disk: beyond a bound only the number is kept, with the next one that is written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use consign_common::time::UnixMs;
use tonic::{Code, Status};

use super::{act::Act, store};
use crate::store::{Store, StoreError};

/// Refusals of one caller that are written within a minute.
const IN_A_MINUTE: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);
/// Callers that are counted at once; who comes beyond them begins at zero.
const CALLERS: usize = 10_000;

#[derive(Clone, Debug)]
pub struct Refusals {
    store: Arc<Store>,
    counts: Arc<Mutex<HashMap<String, Count>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    since: UnixMs,
    written: u32,
    left_out: u32,
}

impl Refusals {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, counts: Arc::default() }
    }

    /// Writes what was refused, if it was by role or by a rule. What could not be understood, or could not be done at
    /// this moment, was not refused.
    pub async fn record(&self, mut act: Act, status: &Status) {
        let Some(code) = code(status) else { return };
        let Some(left_out) = self.admit(&act) else { return };
        act.refused(&code, status.message());
        if left_out > 0 {
            let more = format!("{} ({left_out} more refusals before this one were not written)", act.reason);
            act.because(more.trim());
        }
        if let Err(error) = self.write(act).await {
            tracing::error!(%error, "a refusal is missing in the audit log");
        }
    }

    async fn write(&self, act: Act) -> Result<(), StoreError> {
        let mut write = self.store.write().await?;
        store::record(&mut write, act).await?;
        write.commit().await
    }

    /// How many were left out before this one; `None`: this one is, too.
    fn admit(&self, act: &Act) -> Option<u32> {
        // Nobody has one name only, and many addresses.
        let caller = match act.who.role.as_str() {
            "anonymous" => act.who.role.clone(),
            _ => act.who.identity.clone(),
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= CALLERS {
            counts.retain(|_, count| act.at.since(count.since) < MINUTE);
        }
        if counts.len() >= CALLERS {
            counts.clear();
        }
        let count = counts.entry(caller).or_default();
        if act.at.since(count.since) >= MINUTE || act.at < count.since {
            *count = Count { since: act.at, written: 0, left_out: count.left_out };
        }
        if count.written >= IN_A_MINUTE {
            count.left_out = count.left_out.saturating_add(1);
            return None;
        }
        count.written += 1;
        Some(std::mem::take(&mut count.left_out))
    }
}

/// The refusal's name: our messages begin with it.
fn code(status: &Status) -> Option<String> {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Some("role".to_owned()),
        Code::FailedPrecondition | Code::AlreadyExists => Some(named(status.message())),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => None,
    }
}

fn named(message: &str) -> String {
    let name = message.split(':').next().unwrap_or_default();
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if is_name && name.len() < message.len() { name.to_owned() } else { "refused".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_names_that_their_messages_begin_with() {
        let refused = |message| code(&Status::failed_precondition(message)).unwrap();
        assert_eq!(refused("approval-missing: 1 of 1 is missing"), "approval-missing");
        assert_eq!(refused("ada started it, and: so on"), "refused");
        assert_eq!(refused(""), "refused");
        assert_eq!(refused("one"), "refused");
        assert_eq!(code(&Status::permission_denied("x")).as_deref(), Some("role"));
        assert_eq!(code(&Status::internal("x")), None);
        assert_eq!(code(&Status::invalid_argument("x")), None);
    }
}
