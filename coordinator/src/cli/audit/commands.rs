//! The commands.

use clap::{Args, Subcommand};
use consign_common::{
    audit::{About, Entry},
    name::{App, Environment, Platform, Version},
    time::{Clock as _, SystemClock, UnixMs},
};
use consign_proto::v1;

use super::{
    approvals, entries, receipts,
    remember::{self, Remembered},
    verify,
};
use crate::cli::{
    client::{Client, unary},
    failure::{Failure, Result},
    output::{AuditDispute, AuditLine, ExportedEntry},
    print::{Format, Printer},
    profile::Home,
    text::{artifact_name, parse_span, precise, table},
};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Who did what, oldest first; also what was refused
    #[command(after_help = "Examples:
  consign audit list --since 24h
  consign audit list --app shop --env production
  consign audit list --who ci-shop --output json")]
    List(ListArgs),
    /// Read the whole log and find what was removed, altered or put elsewhere
    #[command(
        after_help = "Makes every hash again, and compares with the ends of the log that this home and the servers'
agents have seen, and with the servers' receipts. What is wrong first is named (exit code 1)."
    )]
    Verify,
    /// Who said that an artifact may go to an environment, by your own trust root
    #[command(after_help = "Example:
  consign audit who-approved shop@1.4.0 --env production")]
    WhoApproved(WhoArgs),
    /// What servers say they ran of an artifact, each signed by its server
    #[command(after_help = "Example:
  consign audit receipts shop@1.4.0 --env production")]
    Receipts(WhoArgs),
    /// Print every entry as it is kept, one JSON document a line, for other programs
    Export,
    /// Say why the log is not the one that was seen before, as after a restored backup
    #[command(after_help = "Example:
  consign audit accept --reason 'restored the backup of Monday night'")]
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// About this app
    #[arg(long)]
    app: Option<App>,
    /// About this environment
    #[arg(long = "env", value_name = "ENV")]
    environment: Option<Environment>,
    /// By this operator, `server NAME`, `local user UID` or `coordinator`
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Not older than this: 24h, or 2026-03-01T04:00:00Z
    #[arg(long, value_name = "SPAN or TIME", value_parser = since)]
    since: Option<UnixMs>,
}

#[derive(Debug, Args)]
pub(crate) struct WhoArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    pub(super) artifact: (App, Version),
    /// Only this environment
    #[arg(long = "env", value_name = "ENV")]
    pub(super) environment: Option<Environment>,
    /// Where a version has one artifact per platform: linux-x86_64
    #[arg(long)]
    pub(super) platform: Option<Platform>,
}

#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    /// Why, for those who read the log later
    #[arg(long)]
    reason: String,
}

pub(crate) async fn run(
    command: AuditCommand,
    home: &Home,
    client: &Client,
    printer: &Printer,
) -> Result<()> {
    match command {
        AuditCommand::List(args) => list(args, home, client, printer).await,
        AuditCommand::Verify => verify::run(home, client, printer).await,
        AuditCommand::WhoApproved(args) => approvals::run(args, home, client, printer).await,
        AuditCommand::Receipts(args) => receipts::run(args, home, client, printer).await,
        AuditCommand::Export => export(client, printer).await,
        AuditCommand::Accept(args) => accept(args, home, client, printer).await,
    }
}

async fn list(args: ListArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let heads = entries::heads(client).await?;
    remember::check(home, client, &heads.coordinator, heads.head, printer).await?;
    let request = v1::ReadAuditRequest {
        after: 0,
        app: args.app.map(String::from).unwrap_or_default(),
        environment: args.environment.map(String::from).unwrap_or_default(),
        who: args.who.unwrap_or_default(),
        since_ms: args.since.unwrap_or_default().0,
    };
    let mut all = entries::read(client, request).await?;
    let mut lines = Vec::new();
    while let Some(kept) = all.next().await? {
        let entry = kept.parsed()?;
        lines.push(AuditLine { hash: kept.hash.to_string(), entry });
    }
    printer.show(&lines, |lines| text(lines))
}

fn text(lines: &[AuditLine]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let Entry { sequence, at, who, from, what, reason, .. } = &line.entry;
            let (about, who) = (about(&line.entry), format!("{} ({})", who.identity, who.role));
            let mut row = vec![sequence.to_string(), precise(*at), who, from.clone(), what.clone(), about];
            row.push(line.outcome());
            row.push(reason.clone());
            row
        })
        .collect();
    table(&["ENTRY", "TIME", "WHO", "FROM", "WHAT", "ABOUT", "OUTCOME", "REASON"], &rows)
}

/// Short, for people: digests and ids by their beginning, and an app with its version.
fn about(entry: &Entry) -> String {
    let mut words = Vec::new();
    for (about, text) in &entry.about {
        match about {
            About::App => {
                let version = entry.about.get(&About::Version).map(|version| format!("@{version}"));
                words.push(format!("{text}{}", version.unwrap_or_default()));
            }
            About::Version if entry.about.contains_key(&About::App) => {}
            About::Artifact | About::Deployment => {}
            About::Rollout | About::Token => {
                words.push(format!("{} {}", about.as_str(), text.chars().take(8).collect::<String>()));
            }
            About::Environment
            | About::Key
            | About::Operator
            | About::Predicate
            | About::Role
            | About::Server
            | About::Settings
            | About::Step
            | About::TrustRoot
            | About::Version
            | About::Webhook => words.push(format!("{} {text}", about.as_str())),
        }
    }
    words.join(", ")
}

/// Whatever is asked for as result, an export is lines.
async fn export(client: &Client, printer: &Printer) -> Result<()> {
    let mut all = entries::read(client, v1::ReadAuditRequest::default()).await?;
    while let Some(kept) = all.next().await? {
        let entry = String::from_utf8(kept.bytes)
            .map_err(|_| Failure::new("an entry is not text; `consign audit verify` says which"))?;
        printer.json_line(&ExportedEntry { entry, hash: kept.hash.to_string() })?;
    }
    Ok(())
}

async fn accept(args: AcceptArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let coordinator = entries::heads(client).await?.coordinator;
    let request = unary(v1::AcceptAuditRequest { reason: args.reason });
    let answer = client.operators().accept_audit(request).await.map_err(|status| client.failure(status))?;
    let answer = answer.into_inner();
    let head = entries::head(answer.head.as_ref())?;
    Remembered::begin(&coordinator, head).write(home)?;
    let disputes: Vec<AuditDispute> = answer.disputes.into_iter().map(Into::into).collect();
    printer.show(&disputes, |disputes| {
        let mut text = format!("This home remembers entry {head} from now on, and nothing before it.\n");
        for dispute in disputes {
            text += &format!("Accepted: {} has seen entry {}\n", dispute.server, dispute.sequence);
        }
        text
    })?;
    if printer.format() == Format::Text {
        printer.note(
            "agents remember what they have seen for themselves; `consign-agent status` on a server shows it",
        )?;
    }
    Ok(())
}

/// A span back from now, or a time.
fn since(text: &str) -> std::result::Result<UnixMs, String> {
    if let Ok(span) = parse_span(text) {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        return Ok(UnixMs(SystemClock.now().0.saturating_sub(span)));
    }
    let rule = "give a span as 24h, or a time as 2026-03-01T04:00:00Z";
    let at: jiff::Timestamp = text.parse().map_err(|_| rule)?;
    u64::try_from(at.as_millisecond()).map(UnixMs).map_err(|_| rule.to_owned())
}
