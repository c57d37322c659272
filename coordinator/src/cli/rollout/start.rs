//! `rollout start`: an environment's settings, and what is otherwise this time.

use std::time::Duration;

use clap::{Args, ValueEnum};
use consign_common::{
    digest::Sha256,
    document::duration,
    name::{App, Environment, Id, StepName, Version},
    trust::DecisionAction,
};
use consign_proto::v1;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    at::{At, parse_at},
    commands::started,
    decision,
};
use crate::{
    cli::{
        approve,
        client::{Client, unary},
        failure::{Exit, Failure, Result},
        print::Printer,
        profile::Home,
        signing::KeyArgs,
        text::artifact_name,
    },
    environments::{check_command, check_url},
};

/// Of a health check that does not say.
const WITHIN: Duration = Duration::from_secs(60);
const STATUS: u32 = 200;

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    artifact: (App, Version),
    /// The environment whose servers get it
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
    /// Only these servers: web-1,web-2 or role=web,zone!=b
    #[arg(long, value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    only: Option<String>,
    /// Begin then: 2026-03-01T04:00:00Z, 14:30 (today, your time) or +30m
    #[arg(long, value_name = "TIME", value_parser = parse_at)]
    at: Option<At>,
    /// Leave this step out on every server; repeat it. Where approvals are asked for it is signed, with a --reason
    #[arg(long = "skip-step", value_name = "NAME")]
    skip_steps: Vec<StepName>,
    #[command(flatten)]
    key: KeyArgs,
    /// Hold servers to what `rollout plan` said: one that would do otherwise refuses
    #[arg(long, value_name = "DIGEST")]
    plan: Option<Sha256>,
    /// Why, for those who find it
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Also where it is what runs; publish it again first, for what is signed once is deployed once
    #[arg(long)]
    force: bool,
    /// Stay and show what happens
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Instead of what the environment says")]
struct SettingsArgs {
    /// How many servers have it after this wave: a number or a percentage; repeat it. One alone is the size of each
    #[arg(long = "wave", value_name = "1|25%")]
    waves: Vec<String>,
    /// These servers first, in a wave of their own
    #[arg(long, value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    canary: Option<String>,
    /// No servers first
    #[arg(long, conflicts_with = "canary")]
    no_canary: bool,
    /// Between a wave and the next: 90s, 5m, 1h, or 0
    #[arg(long, value_name = "SPAN", value_parser = span_or_zero)]
    bake: Option<u64>,
    /// Servers that may fail over the whole rollout; one more stops it
    #[arg(long, value_name = "N")]
    failures: Option<u32>,
    /// And of those that share a value of this label, N
    #[arg(long, value_name = "LABEL=N", value_parser = group)]
    group: Option<(String, u32)>,
    /// Servers that must be up at any time: a number or a percentage
    #[arg(long, value_name = "N|PERCENT")]
    min_healthy: Option<String>,
    /// What becomes of servers that are not connected: fail, owe, or wait=10m
    #[arg(long, value_name = "POLICY", value_parser = offline)]
    offline: Option<(String, u64)>,
    /// Ask this address about every wave before the next: http://...
    #[arg(long, value_name = "URL", conflicts_with = "health_command", value_parser = url)]
    health_http: Option<String>,
    /// Its status when the wave is good [default: 200]
    #[arg(long, value_name = "STATUS", requires = "health_http", value_parser = clap::value_parser!(u32).range(100..600))]
    health_status: Option<u32>,
    /// Ask this program, which root installed on the coordinator
    #[arg(long, value_name = "NAME", value_parser = command)]
    health_command: Option<String>,
    /// How long it may take to be good [default: 1m]
    #[arg(long, value_name = "SPAN", value_parser = milliseconds)]
    health_within: Option<u64>,
    /// Ask nobody
    #[arg(long, conflicts_with_all = ["health_http", "health_command", "health_within"])]
    no_health: bool,
    /// Servers return by themselves unless confirmed in this time; only shorter than the plan's
    #[arg(long, value_name = "SPAN", value_parser = milliseconds)]
    confirm: Option<u64>,
    /// When it stops: leave servers for you to look at, or bring them back
    #[arg(long, value_enum)]
    on_stop: Option<OnStop>,
    /// While another rollout of the app runs there
    #[arg(long, value_enum)]
    queue: Option<WhileBusy>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnStop {
    Pause,
    Rollback,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhileBusy {
    /// Wait for it
    Queue,
    /// Wait for it, instead of those that wait already
    Supersede,
    /// Do not start
    Refuse,
}

pub(super) async fn start(args: StartArgs, home: &Home, client: &Client, printer: &Printer) -> Result<Exit> {
    let (id, statements) = left_out(&args, home, client).await?;
    let (app, version) = args.artifact;
    let check = format!("consign rollout check {app}@{version} --env {}", args.environment);
    let now = jiff::ZonedDateTime::now();
    let not_before_ms = args.at.map(|at| at.resolve(&now)).transpose().map_err(Failure::usage)?;
    let request = v1::StartRolloutRequest {
        app: app.into(),
        version: version.into(),
        environment: args.environment.into(),
        settings: Some(args.settings.into_wire()?),
        selector: args.only.unwrap_or_default(),
        force: args.force,
        not_before_ms: not_before_ms.map_or(0, |at| at.0),
        skip_steps: args.skip_steps.into_iter().map(String::from).collect(),
        reason: args.reason.unwrap_or_default(),
        plan: args.plan.map(String::from).unwrap_or_default(),
        statements: statements.into_iter().map(Into::into).collect(),
        id,
    };
    let answer = client
        .operators()
        .start_rollout(unary(request))
        .await
        .map_err(|status| unsigned(client.failure(status), &check))?;
    started(answer.into_inner().into(), args.follow, client, printer).await
}

/// Where signatures are missing, there is a command that says whose.
fn unsigned(failure: Failure, check: &str) -> Failure {
    let missing = ["approval-missing", "gate-unmet", "rearmed"];
    if failure.exit == Exit::Refused && missing.iter().any(|code| failure.what.starts_with(code)) {
        return failure.next(format!("`{check}` says what is missing, and who gives it"));
    }
    failure
}

/// The decisions that steps are left out, and the id of the rollout that they are about; neither where none is asked for.
async fn left_out(args: &StartArgs, home: &Home, client: &Client) -> Result<(String, Vec<Vec<u8>>)> {
    if args.skip_steps.is_empty() {
        return Ok(Default::default());
    }
    let Some((key, root)) = decision::key_for(client, home, &args.key, &args.environment).await? else {
        return Ok(Default::default());
    };
    let Some(reason) = &args.reason else {
        return Err(Failure::usage(format!("in {} a step is left out for a --reason", args.environment)));
    };
    let (app, version) = &args.artifact;
    let papers = approve::fetch(client, &root, (app, version), None).await?;
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| Failure::new("the system gives no random bytes"))?;
    let id = Id::from_bytes(bits);
    let sign = |step: &StepName| {
        let about = decision::About {
            rollout: id.clone(),
            environment: args.environment.clone(),
            artifact: papers.digest,
            name: papers.name(),
        };
        let verdict = decision::Verdict {
            server: None,
            step: step.clone(),
            action: DecisionAction::Skip,
            reason: reason.clone(),
        };
        key.sign(&decision::statement(about, verdict))
    };
    Ok((id.to_string(), args.skip_steps.iter().map(sign).collect::<Result<_>>()?))
}

impl SettingsArgs {
    fn into_wire(self) -> Result<v1::Settings> {
        let within_ms =
            self.health_within.unwrap_or_else(|| u64::try_from(WITHIN.as_millis()).unwrap_or(u64::MAX));
        let health = match (self.health_http, self.health_command) {
            (Some(url), _) => {
                let status = self.health_status.unwrap_or(STATUS);
                Some(v1::HealthCheck { url, status, command: String::new(), within_ms })
            }
            (None, Some(command)) => {
                Some(v1::HealthCheck { command, within_ms, ..v1::HealthCheck::default() })
            }
            (None, None) if self.no_health => Some(v1::HealthCheck::default()),
            (None, None) if self.health_within.is_some() => {
                return Err(Failure::usage("--health-within goes with --health-http or --health-command"));
            }
            (None, None) => None,
        };
        let (offline, wait_ms) = match self.offline {
            Some((policy, wait_ms)) => (Some(policy), wait_ms),
            None => (None, 0),
        };
        let word =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        Ok(v1::Settings {
            waves: self.waves,
            canary: if self.no_canary { Some(String::new()) } else { self.canary },
            bake_ms: self.bake,
            failures: self.failures,
            group: self.group.map(|(label, failures)| v1::GroupBudget { label, failures }),
            min_healthy: self.min_healthy,
            offline,
            wait_ms,
            health,
            confirm_ms: self.confirm,
            on_stop: word(self.on_stop.and_then(|on_stop| on_stop.to_possible_value())),
            queue: word(self.queue.and_then(|queue| queue.to_possible_value())),
            automation: None,
        })
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    duration(text).map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

fn span_or_zero(text: &str) -> Result<u64, String> {
    if matches!(text, "0" | "0s") { Ok(0) } else { milliseconds(text) }
}

fn group(text: &str) -> Result<(String, u32), String> {
    const RULE: &str = "a group is a label and a number of servers, as zone=1";
    let (label, failures) = text.split_once('=').filter(|(label, _)| !label.is_empty()).ok_or(RULE)?;
    Ok((label.to_owned(), failures.parse().map_err(|_| RULE)?))
}

fn offline(text: &str) -> Result<(String, u64), String> {
    match text.split_once('=') {
        None if matches!(text, "fail" | "owe") => Ok((text.to_owned(), 0)),
        Some(("wait", span)) => Ok(("wait".to_owned(), milliseconds(span)?)),
        None | Some(_) => Err("it is fail, owe, or wait with a span of time, as wait=10m".to_owned()),
    }
}

fn url(text: &str) -> Result<String, String> {
    check_url(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn command(text: &str) -> Result<String, String> {
    check_command(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    fn wire(line: &str) -> Result<v1::Settings> {
        let arguments = std::iter::once("start").chain(line.split_whitespace());
        Only::try_parse_from(arguments).unwrap().settings.into_wire()
    }

    #[test]
    fn what_is_not_said_is_the_environments() {
        assert_eq!(wire("").unwrap(), v1::Settings::default());
    }

    #[test]
    fn what_is_said_is_sent() {
        let line = "--wave 1 --wave 100% --canary role=canary --bake 90s --failures 1 --group zone=0
                    --min-healthy 75% --offline wait=10m --health-command shop-errors --health-within 2m
                    --confirm 30m --on-stop rollback --queue supersede";
        let expected = v1::Settings {
            waves: vec!["1".into(), "100%".into()],
            canary: Some("role=canary".into()),
            bake_ms: Some(90_000),
            failures: Some(1),
            group: Some(v1::GroupBudget { label: "zone".into(), failures: 0 }),
            min_healthy: Some("75%".into()),
            offline: Some("wait".into()),
            wait_ms: 600_000,
            health: Some(v1::HealthCheck {
                command: "shop-errors".into(),
                within_ms: 120_000,
                ..v1::HealthCheck::default()
            }),
            confirm_ms: Some(1_800_000),
            on_stop: Some("rollback".into()),
            queue: Some("supersede".into()),
            automation: None,
        };
        assert_eq!(wire(line).unwrap(), expected);
    }

    #[test]
    fn what_the_environment_has_can_be_taken_away() {
        let without = wire("--bake 0 --min-healthy 0 --no-canary --no-health").unwrap();
        assert_eq!((without.bake_ms, without.canary.as_deref()), (Some(0), Some("")));
        assert_eq!(without.health, Some(v1::HealthCheck::default()));
        assert!(wire("--health-within 5s").is_err(), "of no check");
    }
}
