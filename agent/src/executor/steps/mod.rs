//! The kinds that run in the agent. Each may run again after a crash without harm.

mod http;
mod systemd;
mod tcp;

use std::time::Duration;

use consign_common::{
    deployment::{Failure, StepOutcome},
    plan::{Kind, Step},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::log::AttemptLog;

/// Between two tries of a check.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs a step to its end, its timeout or its cancel. `activate` is done by `switch`, which no cancel interrupts.
pub(super) async fn run(
    step: &Step,
    log: AttemptLog,
    cancelled: oneshot::Receiver<()>,
    switch: impl Future<Output = Result<(), String>>,
) -> StepOutcome {
    let work = async {
        match &step.kind {
            Kind::Activate => switch.await,
            Kind::Systemd(action) => systemd::run(action, &log).await,
            Kind::Http(check) => http::run(check, &log).await,
            Kind::Tcp(check) => tcp::run(check, &log).await,
            Kind::Sleep(span) => {
                sleep(*span).await;
                Ok(())
            }
            Kind::Run(_) | Kind::Shell(_) => Err("it is a process, and the supervisor's".to_owned()),
        }
    };
    if step.kind == Kind::Activate {
        return outcome(work.await, &log);
    }
    tokio::select! {
        result = work => outcome(result, &log),
        // Dropped without a word: the deployment is gone, and so is whoever would ask for the result.
        _ = cancelled => {
            log.say("cancelled");
            StepOutcome::Cancelled
        }
        () = sleep(step.timeout) => {
            let failure = Failure::Timeout { after_ms: u64::try_from(step.timeout.as_millis()).unwrap_or(u64::MAX) };
            log.say(&failure);
            StepOutcome::Failed { failure }
        }
    }
}

fn outcome(result: Result<(), String>, log: &AttemptLog) -> StepOutcome {
    match result {
        Ok(()) => StepOutcome::Succeeded,
        Err(message) => {
            log.say(format_args!("failed: {message}"));
            StepOutcome::Failed { failure: Failure::Check { message } }
        }
    }
}

/// Tries until it comes true or the time is over; the last failure is the one that is told.
async fn until<T: Future<Output = Result<String, String>>>(
    within: Duration,
    log: &AttemptLog,
    mut attempt: impl FnMut(Duration) -> T,
) -> Result<(), String> {
    let deadline = Instant::now() + within;
    let mut told = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match attempt(left.max(PAUSE)).await {
            Ok(line) => {
                log.say(line);
                return Ok(());
            }
            Err(why) => {
                if why != told {
                    log.say(&why);
                    told = why;
                }
            }
        }
        if Instant::now() + PAUSE > deadline {
            return Err(format!("{told} (tried for {} s)", within.as_secs_f32()));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
