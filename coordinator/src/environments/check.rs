//! Values that cannot be meant, whoever sends them: the file's parser says where, the service only what.

use http::{Uri, uri::Scheme};

use super::{Health, Settings, freeze::Misplaced};
use crate::{
    fleet::{InvalidSelector, Selector},
    rollout::{HealthCheck, InvalidWaves, Offline, Probe, Target, cumulative},
};

/// Waves of a rollout: nobody wrote more by hand.
pub const WAVES: usize = 100;
/// The longest span that can be set: a week.
const LONGEST_MS: u64 = 168 * 3_600_000;
const URL_BYTES: usize = 2000;
const NAME_BYTES: usize = 100;
const LABEL_BYTES: usize = 253;
/// Stands for a fleet of any size where only the waves themselves are looked at.
const ANY: u32 = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    #[error("more than {WAVES} waves")]
    TooManyWaves,
    #[error(transparent)]
    Waves(#[from] InvalidWaves),
    #[error("the last wave is {last}, so that no fleet is ever reached whole; end with 100%")]
    NeverAll { last: String },
    #[error(transparent)]
    Canary(#[from] InvalidSelector),
    #[error("a span of time lies between 1ms and 168h")]
    Span,
    #[error("{label:?} is no label: letters, digits and . - _ /")]
    Label { label: String },
    #[error("servers that stay up are a number, as 2, or a percentage, as 75%")]
    MinHealthy,
    #[error(
        "{url:?} is no address of http://HOST[:PORT]/PATH; the coordinator asks without TLS and without a password"
    )]
    Url { url: String },
    #[error("a status is a number from 100 to 599")]
    Status,
    #[error(
        "{name:?} is no name of a health program: a plain file name of letters, digits and . - _, which root installed on the coordinator"
    )]
    Command { name: String },
    #[error(
        "a server would wait {confirm} for its confirmation, and the verdict on its wave may take {needed} (bake, health and the wait for offline servers)"
    )]
    ConfirmTooShort { confirm: String, needed: String },
    #[error("more than {most} windows of `freeze`")]
    TooManyWindows { most: usize },
    #[error("`freeze`: {0}")]
    Freeze(#[from] Misplaced),
}

impl Settings {
    pub fn check(&self) -> Result<(), InvalidSetting> {
        if let Some(waves) = &self.waves {
            check_waves(waves)?;
        }
        if let Some(canary) = &self.canary {
            canary.parse::<Selector>()?;
        }
        if let Some(group) = &self.group {
            check_label(&group.label)?;
        }
        if let Some(text) = &self.min_healthy {
            min_healthy(text)?;
        }
        match &self.health {
            Some(Health::Check(check)) => check_health(check)?,
            Some(Health::Unasked) | None => {}
        }
        let wait = match &self.offline {
            Some(Offline::Wait { ms }) => Some(*ms),
            Some(Offline::Fail | Offline::Owe) | None => None,
        };
        let bake = self.bake_ms.filter(|ms| *ms > 0);
        if [bake, self.confirm_ms, wait].into_iter().flatten().any(|ms| ms == 0 || ms > LONGEST_MS) {
            return Err(InvalidSetting::Span);
        }
        self.automation.check()?;
        self.check_confirm()
    }

    /// Where it is short of what these very settings need, it can never be met.
    pub(super) fn check_confirm(&self) -> Result<(), InvalidSetting> {
        let Some(confirm) = self.confirm_ms else { return Ok(()) };
        let health = match &self.health {
            Some(Health::Check(check)) => check.within_ms,
            Some(Health::Unasked) | None => 0,
        };
        let wait = match &self.offline {
            Some(Offline::Wait { ms }) => *ms,
            Some(Offline::Fail | Offline::Owe) | None => 0,
        };
        let needed = self.bake_ms.unwrap_or(0).saturating_add(health).saturating_add(wait);
        if needed < confirm {
            return Ok(());
        }
        Err(InvalidSetting::ConfirmTooShort { confirm: super::span(confirm), needed: super::span(needed) })
    }
}

/// What is wrong with a list of waves on a fleet of any size.
pub(super) fn check_waves(waves: &[String]) -> Result<(), InvalidSetting> {
    if waves.len() > WAVES {
        return Err(InvalidSetting::TooManyWaves);
    }
    let targets: Vec<Target> = waves.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    match cumulative(&targets, ANY) {
        Ok(_) => Ok(()),
        // Whether a count is enough depends on how many servers there are then.
        Err(InvalidWaves::DoesNotAddUp { .. }) => match targets.last() {
            Some(last @ Target::Percent(_)) => Err(InvalidSetting::NeverAll { last: last.to_string() }),
            Some(Target::Count(_)) | None => Ok(()),
        },
        Err(error) => Err(error.into()),
    }
}

/// `None`: no server has to stay up.
pub(super) fn min_healthy(text: &str) -> Result<Option<Target>, InvalidSetting> {
    match text {
        "0" | "0%" => Ok(None),
        text => text.parse().map(Some).map_err(|_| InvalidSetting::MinHealthy),
    }
}

pub(super) fn check_label(label: &str) -> Result<(), InvalidSetting> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/');
    if label.is_empty() || label.len() > LABEL_BYTES || !label.bytes().all(word) {
        return Err(InvalidSetting::Label { label: label.chars().take(80).collect() });
    }
    Ok(())
}

fn check_health(check: &HealthCheck) -> Result<(), InvalidSetting> {
    match &check.probe {
        Probe::Http { url, status } => {
            check_url(url)?;
            if !(100..600).contains(status) {
                return Err(InvalidSetting::Status);
            }
        }
        Probe::Command { name } => check_command(name)?,
    }
    if check.within_ms == 0 || check.within_ms > LONGEST_MS {
        return Err(InvalidSetting::Span);
    }
    Ok(())
}

pub fn check_url(url: &str) -> Result<(), InvalidSetting> {
    let given = || InvalidSetting::Url { url: url.chars().take(80).collect() };
    if url.len() > URL_BYTES {
        return Err(given());
    }
    let uri: Uri = url.parse().map_err(|_| given())?;
    let authority = uri.authority().ok_or_else(given)?;
    let plain = uri.scheme() == Some(&Scheme::HTTP) && !authority.as_str().contains('@');
    if plain && !authority.host().is_empty() { Ok(()) } else { Err(given()) }
}

/// It is joined to a directory of root's: nothing in it may lead elsewhere.
pub fn check_command(name: &str) -> Result<(), InvalidSetting> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if name.is_empty() || name.len() > NAME_BYTES || name.starts_with('.') || !plain {
        return Err(InvalidSetting::Command { name: name.chars().take(80).collect() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_that_no_fleet_can_have_are_refused() {
        let check =
            |waves: &[&str]| check_waves(&waves.iter().map(|wave| (*wave).to_owned()).collect::<Vec<_>>());
        for good in [&["1", "10%", "100%"][..], &["25%"], &["2"], &["1", "5", "20"], &[]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        assert!(matches!(check(&["1", "50%"]), Err(InvalidSetting::NeverAll { .. })));
        for bad in [&["50%", "25%", "100%"][..], &["0%"], &["x"], &["101%"]] {
            assert!(matches!(check(bad), Err(InvalidSetting::Waves(_))), "{bad:?}");
        }
        assert_eq!(check(&["1"; 101]), Err(InvalidSetting::TooManyWaves));
    }

    #[test]
    fn an_address_is_plain_http() {
        for good in ["http://10.0.0.1/healthz", "http://shop.internal:8080/ok?deep=1", "http://[::1]:80/"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        let bad = [
            "https://shop/",
            "ftp://shop/",
            "shop/health",
            "/health",
            "",
            "http://",
            "http://a@b/",
            "http://a b/",
        ];
        for bad in bad {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_programs_name_leads_nowhere_else() {
        assert_eq!(check_command("shop-errors.sh"), Ok(()));
        for bad in ["", ".", "..", ".hidden", "a/b", "../sh", "/bin/sh", "a b", "a\n", "é"] {
            assert!(check_command(bad).is_err(), "{bad:?}");
        }
    }
}
