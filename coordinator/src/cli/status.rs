//! `consign status`: the coordinator in one look.

use consign_common::terminal::escape_line;
use consign_common::time::UnixMs;
use consign_proto::v1;

use super::{
    audit,
    client::{Client, unary},
    failure::Result,
    output::{AuditDispute, Behind, Hold, Status},
    print::Printer,
    profile::Home,
    text::short,
    trust::Validity,
};

pub(super) async fn run(home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let answer = client
        .operators()
        .status(unary(v1::StatusRequest {}))
        .await
        .map_err(|status| client.failure(status))?;
    let answer = answer.into_inner();
    let head = audit::head(answer.audit.as_ref())?;
    audit::check_head(home, client, &answer.coordinator, head, printer).await?;
    printer.show(&Status::from(answer), text)
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
    for hold in &status.holds {
        text += &format!("HOLD         {}\n", hold_text(hold));
    }
    for server in &status.quarantined {
        let server = escape_line(server);
        text += &format!(
            "QUARANTINED  {server}: nothing is deployed to it; `consign server show {server}` says why\n"
        );
    }
    for dispute in &status.audit_disputes {
        text += &format!("REWRITTEN    {}\n", escape_line(&dispute_text(dispute)));
    }
    for behind in &status.behind {
        text += &format!("BEHIND       {}\n", escape_line(&behind_text(behind)));
    }
    text
}

/// Why nothing begins by itself there, and what ends that.
fn hold_text(hold: &Hold) -> String {
    let (app, environment) = (escape_line(&hold.app), escape_line(&hold.environment));
    let because = escape_line(&hold.because);
    format!(
        "{app} in {environment}: {because}; nothing begins by itself there until \
         consign env lift-hold {app} --env {environment} --reason WHY"
    )
}

/// A line of its own where the trust root ends soon, or has ended.
fn validity(status: &Status) -> String {
    let words = Validity::of(UnixMs(status.trust_root_expires_ms), UnixMs(status.now_ms)).words();
    if words.is_empty() { words } else { format!("             {words}\n") }
}

/// What an agent has seen that is not there, and what to do.
pub(super) fn dispute_text(dispute: &AuditDispute) -> String {
    let AuditDispute { server, sequence, hash, found, .. } = dispute;
    let now = match found.as_str() {
        "" => "there is none".to_owned(),
        found => format!("another one ({}) stands there", short(found, 12)),
    };
    format!(
        "{server} has seen entry {sequence} ({}) of the audit log, and {now}: somebody changed the past, or a backup was          restored; see consign audit verify, then consign audit accept --reason WHY",
        short(hash, 12)
    )
}

/// Why nothing is started there, and what ends that.
pub(super) fn behind_text(behind: &Behind) -> String {
    let Behind { app, environment, term, given, server, .. } = behind;
    format!(
        "{app} in {environment}: {server} has seen term {term}, this coordinator gave {given}: it was restored from a backup; \
         see what runs, then consign env take-over {app} --env {environment} --reason WHY"
    )
}
