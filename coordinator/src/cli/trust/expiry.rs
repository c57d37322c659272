//! A trust root has an end: said well before, and what holds after it.

use std::time::Duration;

use consign_common::time::{Clock, SystemClock, UnixMs};

use super::commands::newest;
use crate::cli::{client::Client, print::Printer, profile::Home};

/// A month: owners may have to be found, and meet.
pub(crate) const AHEAD: Duration = Duration::from_secs(30 * 24 * 3600);
const RENEW: &str = "consign trust update --expires 365d";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Good,
    /// Days that are left, rounded down.
    Ending {
        days: u64,
    },
    Expired,
}

impl Validity {
    pub(crate) fn of(expires: UnixMs, now: UnixMs) -> Self {
        if now >= expires {
            return Self::Expired;
        }
        let left = expires.since(now);
        if left < AHEAD { Self::Ending { days: left.as_secs() / 86_400 } } else { Self::Good }
    }

    /// For a line that says until when it is valid; empty where all is well.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Good => String::new(),
            Self::Ending { days } => format!("{days} days left, renew it: {RENEW}"),
            Self::Expired => format!(
                "EXPIRED: new deployments are refused (trust-root-expired); what runs, and returns, go on. Renew it: {RENEW}"
            ),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "valid",
            Self::Ending { .. } => "ending",
            Self::Expired => "expired",
        }
    }
}

/// Says on stderr, once per command, that the trust root ends soon or has ended. The pinned copy may be older than what is
/// in force: before it is said, the coordinator is asked.
pub(crate) async fn warn(home: &Home, client: &Client, printer: &Printer) {
    let now = SystemClock.now();
    let Ok((_, pinned)) = home.trust_root() else { return };
    if Validity::of(pinned.expires, now) == Validity::Good {
        return;
    }
    // Whatever is wrong with asking, the command itself will say.
    let expires = newest(home, client).await.map_or(pinned.expires, |(_, root)| root.expires);
    let validity = Validity::of(expires, now);
    if validity != Validity::Good {
        drop(printer.note(&format!("the trust root is valid until {expires}: {}", validity.words())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ahead_it_is_said() {
        const DAY: u64 = 86_400_000;
        let expires = UnixMs(400 * DAY);
        let at = |days: u64| Validity::of(expires, UnixMs(days * DAY));
        assert_eq!(at(0), Validity::Good);
        assert_eq!(at(370), Validity::Good);
        assert_eq!(Validity::of(expires, UnixMs(370 * DAY + 1)), Validity::Ending { days: 29 });
        assert_eq!(Validity::of(expires, UnixMs(expires.0 - 1)), Validity::Ending { days: 0 });
        assert_eq!((at(400), at(500)), (Validity::Expired, Validity::Expired));
        assert!(at(400).words().contains("trust-root-expired") && at(0).words().is_empty());
    }
}
