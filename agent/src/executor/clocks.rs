//! CLOCK_BOOTTIME: never set, and it counts also while the server sleeps. Another boot begins at zero.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Milliseconds since this boot.
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let ms = |value: i64| u64::try_from(value).unwrap_or_default();
    ms(now.tv_sec).saturating_mul(1000).saturating_add(ms(now.tv_nsec) / 1_000_000)
}

/// Until this moment of this boot; at once where it has passed.
pub(super) async fn sleep_until(deadline_ms: u64) {
    if boot_ms() >= deadline_ms {
        return;
    }
    match timer(deadline_ms) {
        // Readable once, when it has expired.
        Ok(timer) => {
            if let Err(error) = timer.readable().await {
                tracing::error!(%error, "a timer broke: its moment counts as come");
            }
        }
        Err(error) => {
            tracing::warn!(%error, "no timer by CLOCK_BOOTTIME: time that this server sleeps does not count");
            tokio::time::sleep(Duration::from_millis(deadline_ms.saturating_sub(boot_ms()))).await;
        }
    }
}

fn timer(deadline_ms: u64) -> io::Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let deadline = Timespec {
        tv_sec: i64::try_from(deadline_ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(deadline_ms % 1000 * 1_000_000).unwrap_or_default(),
    };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: deadline };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &once)?;
    // Its successor is unsafe for the sake of types that may name a closed file; this one owns the file it names.
    #[expect(deprecated, reason = "sound for an `OwnedFd`")]
    AsyncFd::new(timer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moment_that_has_passed_is_not_waited_for_and_another_one_is() {
        sleep_until(0).await;
        let deadline = boot_ms() + 30;
        sleep_until(deadline).await;
        assert!(boot_ms() >= deadline);
    }
}
