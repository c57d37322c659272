//! `consign status`: the coordinator in one look.

use consign_common::terminal::escape_line;
use consign_common::time::UnixMs;
use consign_proto::v1;

use super::{
    client::{Client, unary},
    failure::Result,
    output::{Behind, Status},
    print::Printer,
    trust::Validity,
};

pub(super) async fn run(client: &Client, printer: &Printer) -> Result<()> {
    let answer = client
        .operators()
        .status(unary(v1::StatusRequest {}))
        .await
        .map_err(|status| client.failure(status))?;
    printer.show(&Status::from(answer.into_inner()), text)
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "coordinator  {} (consign {})
you          {} ({})
servers      {} of {} online
artifacts    {}
rollouts     {} active
candidates   {} waiting
trust root   {}, valid until {}
{}",
        escape_line(&status.coordinator),
        escape_line(&status.version),
        escape_line(&status.identity),
        escape_line(&status.role),
        status.servers_online,
        status.servers,
        status.artifacts,
        status.rollouts_active,
        status.candidates_waiting,
        status.trust_root_version,
        UnixMs(status.trust_root_expires_ms),
        validity(status),
    );
    for server in &status.quarantined {
        let server = escape_line(server);
        text += &format!(
            "QUARANTINED  {server}: nothing is deployed to it; `consign server show {server}` says why\n"
        );
    }
    for behind in &status.behind {
        text += &format!("BEHIND       {}\n", escape_line(&behind_text(behind)));
    }
    text
}

/// A line of its own where the trust root ends soon, or has ended.
fn validity(status: &Status) -> String {
    let words = Validity::of(UnixMs(status.trust_root_expires_ms), UnixMs(status.now_ms)).words();
    if words.is_empty() { words } else { format!("             {words}\n") }
}

/// Why nothing is started there, and what ends that.
pub(super) fn behind_text(behind: &Behind) -> String {
    let Behind { app, environment, term, given, server, .. } = behind;
    format!(
        "{app} in {environment}: {server} has seen term {term}, this coordinator gave {given}: it was restored from a backup; \
         see what runs, then consign env take-over {app} --env {environment} --reason WHY"
    )
}
