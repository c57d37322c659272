//! The process around a coordinator: logs, signals, systemd.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use consign_common::time::SystemClock;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    time,
};
use tracing_subscriber::EnvFilter;

use super::{Coordinator, Options, ServeError};

/// Serves until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<(), ServeError> {
    let filter = EnvFilter::try_from_env("CONSIGN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    if let Err(error) = logs {
        tracing::debug!(%error, "logs go where they went before");
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<(), ServeError> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let coordinator = Coordinator::start(options, Arc::new(SystemClock)).await?;
    let addresses = &coordinator.addresses;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "consign serves on {} (enrolment on {}), known to others as {} and {}",
        addresses.listen, addresses.enrolment_listen, addresses.address, addresses.enrolment_address
    )?;
    out.flush()?;
    notify(&[NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = watchdog(&coordinator) => {}
    }
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    coordinator.stop().await;
    Ok(())
}

/// Tells systemd that we live, for as long as the database answers; without a watchdog it waits for ever.
async fn watchdog(coordinator: &Coordinator) {
    let Some(period) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut every = time::interval((period / 2).max(Duration::from_millis(100)));
    loop {
        every.tick().await;
        if coordinator.is_well().await {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
