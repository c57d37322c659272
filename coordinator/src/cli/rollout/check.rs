//! `rollout check`: what every server will say, and why, before anything is touched.

use clap::Args;
use consign_common::{
    name::{App, Environment, Platform, Version},
    terminal::escape_line,
    time::{Clock, SystemClock},
};
use consign_proto::v1;
use serde::Serialize;

use super::plan::{groups, listed};
use crate::cli::{
    approve,
    client::{Client, unary},
    failure::{Exit, Failure, Result},
    output::{GateLine, Plan, PlannedServer},
    print::Printer,
    profile::Home,
    text::artifact_name,
    trust,
};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    artifact: (App, Version),
    /// The environment whose servers are asked
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
    /// Where a version has one artifact per platform: linux-x86_64
    #[arg(long)]
    platform: Option<Platform>,
    /// Only these servers: web-1,web-2 or role=web,zone!=b
    #[arg(long, visible_alias = "server", value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    only: Option<String>,
    /// Also where it is what runs
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Checked {
    app: String,
    version: String,
    environment: String,
    digest: String,
    /// Every server would take it, and every rule that holds everywhere is met.
    allowed: bool,
    /// Checked here; those of `rearm` hold only where the last deployment failed or was returned.
    gate: Vec<GateLine>,
    /// Where those of `rearm` hold: the last deployment of the app there did not succeed.
    rearmed: Vec<Rearmed>,
    /// What every server says; `by` the coordinator where it could not be asked.
    plan: Plan,
    /// Why no server says anything.
    #[serde(skip_serializing_if = "String::is_empty")]
    nobody: String,
}

/// A server whose last deployment of the app did not succeed, as the coordinator has it from its agent.
#[derive(Debug, Serialize)]
struct Rearmed {
    server: String,
    since_ms: u64,
}

async fn rearmed(client: &Client, app: &App, environment: &Environment) -> Result<Vec<Rearmed>> {
    let request =
        unary(v1::ListServersRequest { environment: environment.to_string(), ..Default::default() });
    let answer = client.operators().list_servers(request).await.map_err(|status| client.failure(status))?;
    let of_app = |server: v1::Server| {
        let state = server.apps.into_iter().find(|state| state.app == app.as_str() && state.failed_ms > 0)?;
        Some(Rearmed { server: server.name, since_ms: state.failed_ms })
    };
    Ok(answer.into_inner().servers.into_iter().filter_map(of_app).collect())
}

pub(super) async fn run(args: CheckArgs, home: &Home, client: &Client, printer: &Printer) -> Result<Exit> {
    let (app, version) = &args.artifact;
    let environment = &args.environment;
    let (_, root) = trust::newest(home, client).await?;
    let papers = approve::fetch(client, &root, (app, version), args.platform.as_ref()).await?;
    let papers = papers.configured(client, environment).await?;
    let refused =
        |refusal: consign_common::trust::Refusal| Failure::refused(format!("{}: {refusal}", refusal.code()));
    let config = approve::in_force(&papers, &root, environment).map_err(refused)?;
    let gate =
        approve::gate_lines(&papers, &root, environment, &config, SystemClock.now()).map_err(refused)?;
    let request = v1::PlanRolloutRequest {
        app: app.to_string(),
        version: version.to_string(),
        environment: environment.to_string(),
        selector: args.only.unwrap_or_default(),
        force: args.force,
        skip_steps: Vec::new(),
    };
    let unmet = gate.iter().any(|line| line.part == approve::REQUIRE && line.missing > 0);
    let answer = client.operators().check_rollout(unary(request)).await;
    let (plan, nobody) = match answer.map_err(|status| client.failure(status)) {
        Ok(answer) => (Plan::from(answer.into_inner()), String::new()),
        // What the gate lacks is worth knowing all the same.
        Err(failure) if unmet => (Plan::default(), failure.what),
        Err(failure) => return Err(failure),
    };
    let takes = |server: &PlannedServer| {
        server.code.is_empty() && matches!(server.state.as_str(), "planned" | "no-op" | "not-connected")
    };
    // Where no rule of `rearm` is, it does not matter.
    let rearmed = match gate.iter().any(|line| line.part == approve::REARM) {
        true => rearmed(client, app, environment).await?,
        false => Vec::new(),
    };
    let checked = Checked {
        app: app.to_string(),
        version: version.to_string(),
        environment: environment.to_string(),
        digest: papers.digest.to_string(),
        allowed: !unmet && plan.servers.iter().all(takes),
        gate,
        rearmed,
        plan,
        nobody,
    };
    printer.show(&checked, text)?;
    Ok(if checked.allowed { Exit::Done } else { Exit::Refused })
}

fn text(checked: &Checked) -> String {
    let Checked { app, version, environment, .. } = checked;
    let mut text = format!("{}@{} to {}\n", escape_line(app), escape_line(version), escape_line(environment));
    text.push_str("\nthe gate, checked here with your own trust root:\n");
    if checked.gate.is_empty() {
        text.push_str("  nothing but the publisher's signature\n");
    }
    for line in &checked.gate {
        let mark = match (line.part, line.missing) {
            (approve::REARM, _) => "if     ",
            (_, 0) => "met    ",
            (_, _) => "missing",
        };
        text.push_str(&format!("  {mark}  {}\n", escape_line(&approve::rule(line))));
        for why in &line.uncounted {
            text.push_str(&format!("           does not count: {}\n", escape_line(why)));
        }
        if !line.next.is_empty() {
            text.push_str(&format!("           {}\n", escape_line(&line.next)));
        }
    }
    if !checked.rearmed.is_empty() {
        let names: Vec<&str> = checked.rearmed.iter().map(|rearmed| rearmed.server.as_str()).collect();
        text.push_str(&format!("  rearmed since their last deployment: {}\n", listed(&names)));
    }
    text.push_str("\nservers:\n");
    if !checked.nobody.is_empty() {
        text.push_str(&format!("  {}\n", escape_line(&checked.nobody)));
    }
    for (what, names) in groups(&checked.plan) {
        let says = match (what.state.as_str(), what.code.as_str()) {
            ("planned", "") => "would take it".to_owned(),
            ("planned", code) => format!("would not take it yet: {code}: {}", what.because),
            ("no-op", _) => "run it already".to_owned(),
            ("refused", code) => format!("would refuse it: {code}: {}", what.because),
            (state, "") => format!("{state}: {}", what.because),
            (state, code) => format!("{state}: {code}: {}", what.because),
        };
        text.push_str(&format!("  {}: {}\n", listed(&names), escape_line(&says)));
    }
    text.push_str(if checked.allowed { "\nallowed\n" } else { "\nnot allowed as it is\n" });
    text
}
