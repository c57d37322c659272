//! `consign server`: who is enrolled, and the one string that enrols another.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use consign_common::{
    name::{Environment, ServerName},
    time::{Clock, SystemClock, UnixMs},
    trust::{JoinRole, JoinToken, TrustRoot, TrustRootPin},
};
use consign_proto::v1;
use serde::Serialize;

use super::{
    acceptance::{self, AcceptArgs, Acceptance},
    client::{Client, unary},
    failure::{Doing, Failure, Result},
    output::Server,
    print::{Format, Printer},
    profile::Home,
    status::{behind_text, dispute_text},
    text::{ago, pairs, parse_span, short, span, table},
    trust::{self, Validity},
};

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Make the string that enrols a server: `consign-agent enroll TOKEN` on that machine
    #[command(after_help = "Example:
  consign server token --name web-1 --env staging")]
    Token(TokenArgs),
    /// List servers, with what runs on them
    List(ListArgs),
    /// Show one server
    Show(NameArgs),
    /// Let a disabled or quarantined server take part in rollouts again
    Enable(EnableArgs),
    /// Keep a server out of rollouts
    Disable(DisableArgs),
    /// Vouch for a server's keys, after comparing the fingerprint: secrets are sealed to accepted servers only
    #[command(after_help = "Example:
  consign server accept web-1 --fingerprint 3f2a-91bc-07d4-e6aa-5510-8c3e-b1f0-2d77")]
    Accept(Box<AcceptArgs>),
    /// Remove a server: its identity ends within a second
    Remove(NameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The server's name
    #[arg(long)]
    name: ServerName,
    /// The environment it belongs to, for good
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
    /// How long the token can be used
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_span)]
    ttl: Duration,
    /// The name is in use, and its old identity ends when the token is used
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this environment
    #[arg(long = "env", value_name = "ENV")]
    environment: Option<Environment>,
    /// Only these: web-1,web-2 or role=web,zone!=b
    #[arg(long, value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    only: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The server's name
    name: ServerName,
}

#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// The server's name
    name: ServerName,
    /// Of a quarantined one that was not enrolled anew: why there is only one agent of that name
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DisableArgs {
    /// The server's name
    name: ServerName,
    /// Why, for those who find it disabled
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenMade {
    token: String,
    name: String,
    expires_ms: u64,
}

pub(super) async fn run(
    command: ServerCommand,
    home: &Home,
    client: &Client,
    printer: &Printer,
) -> Result<()> {
    match command {
        ServerCommand::Token(args) => token(args, home, client, printer).await,
        ServerCommand::List(args) => {
            let request = v1::ListServersRequest {
                environment: args.environment.map(String::from).unwrap_or_default(),
                selector: args.only.unwrap_or_default(),
                name: String::new(),
            };
            let servers = list(home, client, request).await?;
            printer.show(&servers, |servers| list_text(servers, SystemClock.now()))
        }
        ServerCommand::Show(args) => {
            let request = v1::ListServersRequest { name: args.name.to_string(), ..Default::default() };
            let server = list(home, client, request).await?.into_iter().next().ok_or_else(|| {
                Failure::new(format!("there is no server {}", args.name))
                    .next("`consign server list` shows all")
            })?;
            printer.show(&server, |server| show_text(server, SystemClock.now()))
        }
        ServerCommand::Enable(args) => {
            set(args.name, true, args.reason.unwrap_or_default(), client, printer).await
        }
        ServerCommand::Disable(args) => set(args.name, false, args.reason, client, printer).await,
        ServerCommand::Accept(args) => acceptance::accept(*args, home, client, printer).await,
        ServerCommand::Remove(args) => {
            let request = unary(v1::RemoveServerRequest { name: args.name.to_string() });
            client.operators().remove_server(request).await.map_err(|status| client.failure(status))?;
            removed(printer, args.name.as_str())
        }
    }
}

/// What a removal answers.
pub(super) fn removed(printer: &Printer, name: &str) -> Result<()> {
    #[derive(Serialize)]
    struct Removed<'a> {
        removed: &'a str,
    }
    printer.show(&Removed { removed: name }, |it| format!("removed {}\n", it.removed))
}

async fn list(home: &Home, client: &Client, request: v1::ListServersRequest) -> Result<Vec<Server>> {
    let answer =
        client.operators().list_servers(unary(request)).await.map_err(|status| client.failure(status))?;
    let answer = answer.into_inner();
    // An older coordinator does not say.
    let expires = Some(UnixMs(answer.trust_root_expires_ms)).filter(|at| at.0 > 0);
    let validity = expires.map_or("", |at| Validity::of(at, SystemClock.now()).as_str());
    // On the coordinator's own machine, over its socket, there may be no home.
    let root = home.trust_root().ok().map(|(_, root)| root);
    let told = |server: v1::Server| {
        let acceptance = match (&server.keys, &root) {
            (Some(keys), Some(root)) => Acceptance::of(keys, root).as_str(),
            (Some(_) | None, _) => "",
        };
        let (trust_root, acceptance) = (validity.to_owned(), acceptance.to_owned());
        Server { trust_root, acceptance, ..Server::from(server) }
    };
    Ok(answer.servers.into_iter().map(told).collect())
}

async fn set(
    name: ServerName,
    enabled: bool,
    reason: String,
    client: &Client,
    printer: &Printer,
) -> Result<()> {
    let request = unary(v1::SetServerRequest { name: name.to_string(), enabled, reason });
    let answer = client.operators().set_server(request).await.map_err(|status| client.failure(status))?;
    printer.show(&Server::from(answer.into_inner()), |server| show_text(server, SystemClock.now()))
}

async fn token(args: TokenArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let (envelope, root) = trust::newest(home, client).await?;
    if !root.environments.contains_key(&args.environment) {
        return Err(Failure::new(format!(
            "the trust root does not name the environment {}",
            args.environment
        ))
        .next(format!(
            "it names {}; another one: consign trust update --add-env {}",
            names(root.environments.keys()),
            args.environment
        )));
    }
    let request = v1::CreateTokenRequest {
        apps: Vec::new(),
        name: args.name.to_string(),
        environment: args.environment.to_string(),
        role: "agent".into(),
        ttl_seconds: seconds(args.ttl)?,
        replace: args.replace,
    };
    let role = JoinRole::Agent { environment: args.environment };
    let made = make_token(request, args.name, role, (&envelope, &root), home, client).await?;
    let use_it = "sudo deploy/install-agent.sh --enroll TOKEN --allow-app APP --allow-user USER --allow-unit UNIT\n  \
                  or, where the agent is installed: sudo consign-agent enroll TOKEN, and the same options";
    show_token(&made, use_it, printer)
}

/// Asks the coordinator for an id and a secret, and adds what the other machine shall believe: from our own pins.
pub(super) async fn make_token(
    request: v1::CreateTokenRequest,
    name: ServerName,
    role: JoinRole,
    (envelope, root): (&[u8], &TrustRoot),
    home: &Home,
    client: &Client,
) -> Result<TokenMade> {
    let profile = home.profile()?;
    let pinned = root
        .coordinators
        .iter()
        .any(|pin| pin.id == profile.coordinator && pin.ca_sha256 == profile.ca_sha256);
    if !pinned {
        return Err(Failure::refused(format!(
            "the trust root does not name the coordinator {} with the CA of your profile",
            profile.coordinator
        )));
    }
    let answer = client
        .operators()
        .create_token(unary(request))
        .await
        .map_err(|status| client.failure(status))?
        .into_inner();
    let or = |given: String, own: String| if given.is_empty() { own } else { given };
    let token = JoinToken {
        enrolment: vec![or(answer.enrolment_address, profile.enrolment)],
        addresses: vec![or(answer.address, profile.address)],
        coordinator: profile.coordinator,
        ca_sha256: profile.ca_sha256,
        trust_root: TrustRootPin {
            version: root.version,
            sha256: TrustRoot::pin(envelope).doing(|| "the pinned trust root".into())?,
        },
        id: answer.token_id,
        secret: STANDARD.encode(answer.token_secret),
        name: name.clone(),
        role,
    };
    let text = token.to_text().doing(|| "failed to make the token".into())?;
    Ok(TokenMade { token: text, name: name.to_string(), expires_ms: answer.expires_ms })
}

/// Exactly one string on stdout; the words about it on stderr.
pub(super) fn show_token(made: &TokenMade, use_it: &str, printer: &Printer) -> Result<()> {
    printer.show(made, |made| format!("{}\n", made.token))?;
    if printer.format() == Format::Text {
        printer.note(&format!(
            "good for one use as {}, until {}; on that machine:\n  {use_it}",
            made.name,
            UnixMs(made.expires_ms)
        ))?;
    }
    Ok(())
}

pub(super) fn seconds(span: Duration) -> Result<u32> {
    u32::try_from(span.as_secs()).map_err(|_| Failure::usage("--ttl is too long"))
}

/// What a person should know first of a server.
fn state(server: &Server) -> String {
    let mut words = vec![if server.online { "online" } else { "offline" }.to_owned()];
    if !server.quarantined.is_empty() {
        words.push("QUARANTINED".into());
    }
    if !server.behind.is_empty() {
        words.push("coordinator BEHIND".into());
    }
    if !server.enabled {
        words.push("disabled".into());
    }
    if server.acceptance == "accepted" {
        words.push("accepted".into());
    }
    if server.clock_skew {
        words.push(format!("clock {}", offset(server.clock_offset_ms)));
    }
    if !server.trust_root_error.is_empty() {
        words.push("trust root refused".into());
    }
    if is_expired(server) {
        words.push("trust root EXPIRED".into());
    }
    words.join(", ")
}

/// Whether secrets may be sealed to it.
fn secrets(server: &Server) -> String {
    match server.acceptance.as_str() {
        "" => String::new(),
        "accepted" => "accepted: they are sealed to it".to_owned(),
        "no-key" => "none: its agent has no key to seal to yet".to_owned(),
        "other-key" => {
            format!("NOT accepted: it has another key than before; consign server accept {}", server.name)
        }
        _ => format!("not accepted: consign server accept {}", server.name),
    }
}

fn is_expired(server: &Server) -> bool {
    server.trust_root == Validity::Expired.as_str()
}

fn offset(ms: i64) -> String {
    let way = if ms < 0 { "behind" } else { "ahead" };
    format!("{} {way}", span(Duration::from_millis(ms.unsigned_abs())))
}

/// `production, staging`
pub(super) fn names<T: std::fmt::Display>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn labels(server: &Server) -> String {
    server.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn list_text(servers: &[Server], now: UnixMs) -> String {
    if servers.is_empty() {
        return "no servers; enrol one with `consign server token --name NAME --env ENV`\n".into();
    }
    let rows: Vec<Vec<String>> = servers
        .iter()
        .map(|server| {
            let apps: Vec<String> = server
                .apps
                .iter()
                .map(|app| {
                    let version = if app.good.is_empty() { "-" } else { &app.good_version };
                    let armed = if app.rearmed_since_ms > 0 { " (rearmed)" } else { "" };
                    format!("{}@{version}{armed}", app.app)
                })
                .collect();
            vec![
                server.name.clone(),
                server.environment.clone(),
                state(server),
                seen(server, now),
                apps.join(" "),
                labels(server),
            ]
        })
        .collect();
    table(&["SERVER", "ENVIRONMENT", "STATE", "SEEN", "APPS", "LABELS"], &rows)
}

/// How a person ends a quarantine.
fn what_now(server: &Server) -> String {
    format!(
        "enrol the right one anew (consign server token --name {0} --env {1} --replace), then consign server enable {0}",
        server.name, server.environment
    )
}

fn seen(server: &Server, now: UnixMs) -> String {
    if server.online { "now".into() } else { ago(server.last_seen_ms, now) }
}

fn show_text(server: &Server, now: UnixMs) -> String {
    let mut rows = vec![
        vec!["server".into(), server.name.clone()],
        vec!["environment".into(), server.environment.clone()],
        vec!["state".into(), state(server)],
    ];
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![name.into(), value]);
        }
    };
    if !server.quarantined.is_empty() {
        row("quarantined", format!("since {}: {}", UnixMs(server.quarantined_since_ms), server.quarantined));
        row("what now", what_now(server));
    }
    for behind in &server.behind {
        row("behind", behind_text(behind));
    }
    if let Some(dispute) = &server.audit_dispute {
        row("rewritten", dispute_text(dispute));
    }
    if server.unknown_deployments > 0 {
        let count = server.unknown_deployments;
        row(
            "unknown",
            format!("{count} deployments that its agent told of are not known to this coordinator"),
        );
    }
    if !server.enabled {
        row("disabled", format!("by {}: {}", server.disabled_by, server.disabled_reason));
    }
    row("labels", labels(server));
    row("seen", seen(server, now));
    row("identity", server.identity.clone());
    row("fingerprint", server.fingerprint.clone());
    row("secrets", secrets(server));
    row("certificate", format!("until {}", UnixMs(server.certificate_expires_ms)));
    // All else an agent tells when it first connects.
    if server.last_seen_ms > 0 {
        let privilege = if server.root { "" } else { ", without root" };
        row("agent", format!("{} on {} {}{privilege}", server.agent_version, server.os, server.arch));
        row("clock", offset(server.clock_offset_ms));
        let ended =
            if is_expired(server) { format!(", {}", Validity::Expired.words()) } else { String::new() };
        row("trust root", format!("version {}{ended}", server.trust_root_version));
        row("reads", server.document_types.join(" "));
    }
    row("refused", server.trust_root_error.clone());
    for app in &server.apps {
        let good = if app.good.is_empty() {
            "nothing good yet".into()
        } else {
            format!("{} ({})", app.good_version, short(&app.good, 12))
        };
        row(&format!("app {}", app.app), good);
    }
    pairs(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Behind, ServerApp};

    fn server(name: &str) -> Server {
        Server {
            name: name.into(),
            environment: "staging".into(),
            labels: [("role".into(), "web".into()), ("zone".into(), "b".into())].into(),
            online: true,
            enabled: true,
            disabled_reason: String::new(),
            disabled_by: String::new(),
            quarantined: String::new(),
            quarantined_since_ms: 0,
            unknown_deployments: 0,
            behind: vec![],
            audit_seen: 0,
            audit_dispute: None,
            agent_version: "0.1.0".into(),
            last_seen_ms: 1_700_000_000_000,
            clock_offset_ms: 12,
            clock_skew: false,
            apps: vec![ServerApp {
                app: "shop".into(),
                good: "ab".repeat(32),
                good_version: "1.2.0".into(),
                before: String::new(),
                current: "ab".repeat(32),
                rearmed_since_ms: 0,
                config_sequence: 0,
            }],
            trust_root_version: 2,
            trust_root_error: String::new(),
            trust_root: "valid".into(),
            document_types: vec!["consign-order-v1".into(), "application/vnd.in-toto+json".into()],
            identity: "consign://agent/0123".into(),
            certificate_expires_ms: 1_707_000_000_000,
            root: true,
            os: "linux".into(),
            arch: "x86_64".into(),
            fingerprint: String::new(),
            acceptance: String::new(),
        }
    }

    const NOW: UnixMs = UnixMs(1_700_000_240_000);

    #[test]
    fn a_list_shows_what_needs_a_person() {
        let mut skewed = server("web-2");
        (skewed.clock_skew, skewed.clock_offset_ms) = (true, -7_200_000);
        let mut away = server("web-3");
        (away.online, away.enabled, away.apps) = (false, false, vec![]);
        let mut cloned = server("web-4");
        (cloned.online, cloned.quarantined) = (false, "two agents".into());
        insta::assert_snapshot!(list_text(&[server("web-1"), skewed, away, cloned], NOW));
    }

    #[test]
    fn a_list_shows_where_a_failure_has_armed_the_gate() {
        let mut failed = server("web-1");
        failed.apps[0].rearmed_since_ms = 1_700_000_000_000;
        let text = list_text(&[failed, server("web-2")], NOW);
        assert_eq!(text.matches("shop@1.2.0 (rearmed)").count(), 1, "{text}");
        assert_eq!(text.matches("shop@1.2.0").count(), 2, "{text}");
    }

    #[test]
    fn a_quarantined_server_says_why_and_what_now() {
        let mut cloned = server("web-1");
        (cloned.online, cloned.quarantined_since_ms) = (false, 1_700_000_000_000);
        cloned.quarantined = "two agents were connected under its identity at once".into();
        insta::assert_snapshot!(show_text(&cloned, NOW));
    }

    #[test]
    fn a_server_that_is_ahead_of_the_coordinator_says_so() {
        let mut ahead = server("web-1");
        ahead.unknown_deployments = 2;
        ahead.behind = vec![Behind {
            app: "shop".into(),
            environment: "staging".into(),
            term: 7,
            given: 5,
            server: "web-1".into(),
            seen_ms: 1_700_000_000_000,
        }];
        insta::assert_snapshot!(show_text(&ahead, NOW));
    }

    #[test]
    fn an_expired_trust_root_is_said_of_every_server() {
        let mut server = server("web-1");
        server.trust_root = "expired".into();
        let text = list_text(std::slice::from_ref(&server), NOW) + &show_text(&server, NOW);
        assert_eq!(text.matches("trust root EXPIRED").count(), 2, "{text}");
        assert!(text.contains("new deployments are refused (trust-root-expired)"), "{text}");
    }

    #[test]
    fn one_server_shows_all() {
        let mut disabled = server("web-1");
        (disabled.enabled, disabled.disabled_by) = (false, "ada".into());
        disabled.disabled_reason = "disk\u{1b}[2J is being replaced".into();
        insta::assert_snapshot!(show_text(&disabled, NOW));
    }
}
