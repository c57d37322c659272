//! `rollout plan`: what every server would do, said once for those that would do the same.

use std::collections::BTreeMap;

use clap::Args;
use consign_common::{
    name::{App, Environment, StepName, Version},
    terminal::escape_line,
};
use consign_proto::v1;

use crate::cli::{
    client::{Client, unary},
    failure::{Exit, Result},
    output::{Plan, PlannedServer, PlannedStep},
    print::Printer,
    text::{artifact_name, table},
};

/// Names in one line; the others are counted.
const NAMES: usize = 6;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    artifact: (App, Version),
    /// The environment whose servers are asked
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
    /// Only these servers: web-1,web-2 or role=web,zone!=b
    #[arg(long, visible_alias = "server", value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    only: Option<String>,
    /// Without this step; repeat it
    #[arg(long = "skip-step", value_name = "NAME")]
    skip_steps: Vec<StepName>,
    /// Also where it is what runs
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: PlanArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    let (app, version) = args.artifact;
    let request = v1::PlanRolloutRequest {
        app: app.into(),
        version: version.into(),
        environment: args.environment.into(),
        selector: args.only.unwrap_or_default(),
        force: args.force,
        skip_steps: args.skip_steps.into_iter().map(String::from).collect(),
    };
    let answer =
        client.operators().plan_rollout(unary(request)).await.map_err(|status| client.failure(status))?;
    printer.show(&Plan::from(answer.into_inner()), text)?;
    Ok(Exit::Done)
}

fn text(plan: &Plan) -> String {
    let of = format!("{} {}", escape_line(&plan.app), escape_line(&plan.version));
    let environment = escape_line(&plan.environment);
    let mut text = format!("plan of {of} to {environment}: {}\n", servers(plan.servers.len()));
    for (what, names) in groups(plan) {
        let mut lines = format!("\n{} ({}):", servers(names.len()), listed(&names));
        match what.state.as_str() {
            "planned" => {
                lines.push('\n');
                lines.push_str(&steps(&what.steps));
                if !what.code.is_empty() {
                    let (code, why) = (escape_line(&what.code), escape_line(&what.because));
                    lines.push_str(&format!("not yet: {code}: {why}\n"));
                }
            }
            "refused" => lines.push_str(&format!(
                " would refuse it: {}: {}\n",
                escape_line(&what.code),
                escape_line(&what.because)
            )),
            state => lines.push_str(&format!(" {}: {}\n", escape_line(state), escape_line(&what.because))),
        }
        text.push_str(&lines);
    }
    if plan.digest.is_empty() {
        text.push_str("\nno server said what it would do, so that there is nothing to hold a rollout to\n");
    } else {
        let command = format!(
            "consign rollout start {}@{} --env {environment} --plan {}",
            escape_line(&plan.app),
            escape_line(&plan.version),
            escape_line(&plan.digest)
        );
        text.push_str(&format!("\nplan {}\nhold servers to it: {command}\n", escape_line(&plan.digest)));
    }
    text
}

/// What servers would do, and which; what most of them would comes first.
fn groups(plan: &Plan) -> Vec<(PlannedServer, Vec<&str>)> {
    let mut groups: BTreeMap<_, (PlannedServer, Vec<&str>)> = BTreeMap::new();
    for server in &plan.servers {
        let what = PlannedServer { server: String::new(), ..server.clone() };
        let key = (rank(&what.state), what.code.clone(), what.because.clone(), what.steps.clone());
        groups.entry(key).or_insert_with(|| (what, Vec::new())).1.push(&server.server);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|((rank, ..), (_, names))| (*rank, std::cmp::Reverse(names.len())));
    groups.into_iter().map(|(_, group)| group).collect()
}

fn rank(state: &str) -> u8 {
    match state {
        "planned" => 0,
        "no-op" => 1,
        "refused" => 2,
        "disabled" => 3,
        _ => 4,
    }
}

fn servers(count: usize) -> String {
    if count == 1 { "1 server".to_owned() } else { format!("{count} servers") }
}

fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| escape_line(name)).collect();
    let more = names.len().saturating_sub(NAMES);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn steps(steps: &[PlannedStep]) -> String {
    let rows: Vec<Vec<String>> = steps
        .iter()
        .map(|step| {
            vec![
                String::new(),
                step.name.clone(),
                step.kind.clone(),
                step.decision.clone(),
                step.because.clone(),
            ]
        })
        .collect();
    table(&["", "STEP", "KIND", "DECISION", "BECAUSE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, decision: &str, because: &str) -> PlannedStep {
        let (name, kind) = (name.into(), "run".into());
        PlannedStep { name, kind, decision: decision.into(), because: because.into() }
    }

    fn server(name: &str, state: &str, because: &str, steps: Vec<PlannedStep>) -> PlannedServer {
        let code = if state == "refused" { "older".into() } else { String::new() };
        PlannedServer { server: name.into(), state: state.into(), code, because: because.into(), steps }
    }

    #[test]
    fn servers_that_would_do_the_same_are_one_line() {
        let same = || {
            vec![
                step("migrate", "undetermined", "once: on the first server where it is true"),
                step("warm", "skip", "changed('views/**') is false"),
                step("activate", "run", ""),
            ]
        };
        let mut servers: Vec<PlannedServer> =
            (1..=50).map(|n| server(&format!("web-{n:02}"), "planned", "", same())).collect();
        servers.push(server("web-51", "planned", "", vec![step("activate", "run", "\u{1b}[2J")]));
        servers.push(server("web-52", "no-op", "it runs this already", vec![]));
        servers.push(server("web-53", "refused", "a newer one was signed", vec![]));
        servers.push(server("web-54", "disabled", "its disk is being replaced", vec![]));
        servers.push(server("web-55", "not-connected", "it is not connected", vec![]));
        let plan = Plan {
            digest: "9f".repeat(32),
            app: "shop".into(),
            version: "1.4.0".into(),
            environment: "production".into(),
            servers,
            ..Plan::default()
        };
        insta::assert_snapshot!(text(&plan));
    }
}
