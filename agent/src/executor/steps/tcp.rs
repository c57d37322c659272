//! `tcp`: something accepts connections.

use std::time::Duration;

use consign_common::plan::TcpCheck;
use tokio::{net::TcpStream, time::timeout};

use super::{AttemptLog, until};

const CONNECT: Duration = Duration::from_secs(5);

pub(super) async fn run(check: &TcpCheck, log: &AttemptLog) -> Result<(), String> {
    let address = &check.address;
    until(check.within, log, async |left| {
        match timeout(left.min(CONNECT), TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(format!("{address} accepts connections")),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address} does not answer")),
        }
    })
    .await
}
