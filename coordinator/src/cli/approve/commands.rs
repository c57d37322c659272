//! `consign approve`: shows what is known, asks, signs, and hands it over.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use consign_common::{
    config::InForce,
    digest::Sha256,
    durable,
    limits::ENVELOPE_BYTES,
    name::{App, Environment, Platform, Version},
    terminal::escape_line,
    time::{Clock, SystemClock, UnixMs},
    trust::{Predicate, TrustRoot},
};
use consign_proto::v1;

use super::{
    approval::{self, Terms},
    evidence::{self, After, Facts},
    papers::{self, Papers},
    text::{Files, kind, text},
};
use crate::cli::{
    audit,
    client::{Client, unary},
    failure::{Doing, Failure, Result},
    output::{Approved, Evidence, Kept},
    print::{Format, Printer},
    profile::{Home, read},
    signing::KeyArgs,
    text::{artifact_name, parse_span},
    trust,
};

/// Rollouts that are looked through for what happened before.
const ROLLOUTS: u32 = 200;
/// Versions that run there which are compared; a fleet that runs more of them has other troubles.
const COMPARED: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name, required_unless_present = "from")]
    artifact: Option<(App, Version)>,
    /// The environment that it may go to
    #[arg(long = "env", value_name = "ENV", required_unless_present = "from")]
    environment: Option<Environment>,
    /// Where a version has one artifact per platform: linux-x86_64
    #[arg(long)]
    platform: Option<Platform>,
    /// How long a rollout may wait to begin
    #[arg(long, value_name = "SPAN", default_value = "3d", value_parser = parse_span)]
    start_by: Duration,
    /// How long servers that come later (new, rebuilt, long offline) may still take it
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = parse_span)]
    converge_until: Duration,
    /// Only if servers would still do what `rollout plan` said, and nothing else
    #[arg(long, value_name = "DIGEST", conflicts_with = "with_plan")]
    plan: Option<Sha256>,
    /// Only what servers would do now, as it is shown
    #[arg(long)]
    with_plan: bool,
    /// Why, for those who find it
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    /// Name every file that changes
    #[arg(long)]
    files: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Write the signed approval into a file instead of handing it over
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Hand over an approval that was signed elsewhere, and show nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["artifact", "environment", "export"])]
    from: Option<PathBuf>,
}

pub(crate) async fn run(args: ApproveArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    if let Some(path) = &args.from {
        let kept = hand_over(client, read(path, ENVELOPE_BYTES as u64)?).await?;
        return printer.show(&kept, |kept| kept_text("the artifact", kept));
    }
    let (Some((app, version)), Some(environment)) = (&args.artifact, &args.environment) else {
        return Err(Failure::usage("what is approved is APP@VERSION, with --env ENV"));
    };
    let (_, root) = trust::newest(home, client).await?;
    let key = args.key.owners(home)?;
    let owner = key.owner(&root)?;
    approval::check_role(&root, environment, key.id())?;

    let papers = papers::fetch(client, &root, (app, version), args.platform.as_ref()).await?;
    let papers = papers.configured(client, environment).await?;
    let now = SystemClock.now();
    let (evidence, plan) = gather(client, &root, environment, &papers, now).await?;
    let config = evidence::in_force(&papers, &root, environment).map_err(refused)?;
    let plan = bound(&args, &plan, &papers, &config)?;
    if printer.format() == Format::Text {
        let files = if args.files { Files::All } else { Files::Some };
        printer.raw(&text(&evidence, files, now))?;
    }
    let question = format!(
        "{owner} approves {} for {environment}{}",
        papers.name(),
        if plan.is_some() { ", held to this plan" } else { "" }
    );
    if !args.yes {
        confirm(&question, version)?;
    }

    let terms = Terms {
        start_by: args.start_by,
        converge_until: args.converge_until.max(args.start_by),
        plan,
        reason: args.reason.clone(),
    };
    let now = SystemClock.now();
    let statement = approval::statement(&papers, &root, environment, &config, &terms, now);
    let envelope = key.sign(&statement)?;
    will_count(&envelope, &papers, &root, environment, &config, plan, now)?;
    let Predicate::Approval(approval) = statement.predicate else {
        return Err(Failure::new("what was signed is no approval"));
    };
    let kept = match &args.export {
        Some(path) => {
            durable::replace_file(path, &envelope, 0o644).at("write", path)?;
            None
        }
        None => Some(hand_over(client, envelope.clone()).await?),
    };
    let approved = Approved {
        by: owner.to_string(),
        start_by_ms: approval.start_by.0,
        converge_until_ms: approval.converge_until.0,
        config_sha256: approval.config_sha256.map(String::from).unwrap_or_default(),
        plan_sha256: approval.plan_sha256.map(String::from).unwrap_or_default(),
        envelope: String::from_utf8(envelope).unwrap_or_default(),
        kept,
        evidence,
    };
    printer.show(&approved, |approved| approved_text(approved, &papers, args.export.as_deref()))
}

/// All that can be known beforehand. What cannot be had is shown as missing; only the artifact itself must be right.
pub(super) async fn gather(
    client: &Client,
    root: &TrustRoot,
    environment: &Environment,
    papers: &Papers,
    now: UnixMs,
) -> Result<(Evidence, Result<v1::Plan, String>)> {
    let app = &papers.manifest.app;
    let mut operators = client.operators();
    let request = v1::ListServersRequest { environment: environment.to_string(), ..Default::default() };
    let servers = operators.list_servers(unary(request)).await.map_err(|status| client.failure(status))?;
    let servers = servers.into_inner().servers;
    let request = v1::ListRolloutsRequest { app: app.to_string(), limit: ROLLOUTS, ..Default::default() };
    let rollouts = operators.list_rollouts(unary(request)).await.map_err(|status| client.failure(status))?;
    let rollouts = rollouts.into_inner().rollouts;

    let mut others = BTreeMap::new();
    for digest in evidence::running_digests(app, &servers).into_iter().take(COMPARED) {
        if digest != papers.digest {
            let other = papers::fetch_exactly(client, root, digest).await;
            others.insert(digest.to_string(), other.map_err(|failure| failure.what));
        }
    }
    let request = v1::PlanRolloutRequest {
        app: app.to_string(),
        version: papers.manifest.version.to_string(),
        environment: environment.to_string(),
        ..Default::default()
    };
    let plan = operators.plan_rollout(unary(request)).await;
    let plan = plan.map(tonic::Response::into_inner).map_err(|status| client.failure(status).what);
    let facts = Facts {
        root,
        environment,
        papers,
        servers: &servers,
        others: &others,
        rollouts: &rollouts,
        plan: plan.clone(),
        now,
    };
    let mut evidence = evidence::assemble(facts).map_err(refused)?;
    for line in &mut evidence.rollouts {
        let words = audit::words(client, root, &line.id).await?;
        evidence::prove_rollout(line, papers.digest, &words);
    }
    if let Some(line) = &mut evidence.returned {
        evidence::prove_return(line, environment, &audit::words(client, root, &line.rollout).await?);
    }
    Ok((evidence, plan))
}

/// The plan that the approval is bound to, if it is to be.
fn bound(
    args: &ApproveArgs,
    plan: &Result<v1::Plan, String>,
    papers: &Papers,
    config: &InForce,
) -> Result<Option<Sha256>> {
    if args.plan.is_none() && !args.with_plan {
        return Ok(None);
    }
    let plan =
        plan.as_ref().map_err(|why| Failure::refused(format!("there is no plan to approve: {why}")))?;
    if plan.artifact != papers.digest.to_string() {
        return Err(Failure::refused("the coordinator's plan is of another artifact"));
    }
    let document = approval::plan_document(plan, papers.digest, config)?;
    if document.servers.is_empty() {
        return Err(Failure::refused("no server said what it would do, so that there is no plan to approve"));
    }
    let digest = document.digest();
    match args.plan {
        Some(given) if given != digest => Err(Failure::refused(format!(
            "servers would not do any more what the plan {} says; now it is {digest}",
            given.short()
        ))
        .next("look at it with `consign rollout plan`, then approve that one, or --with-plan")),
        Some(_) | None => Ok(Some(digest)),
    }
}

/// What is signed must count where it is meant to; better nothing than an approval that every server passes over.
fn will_count(
    envelope: &[u8],
    papers: &Papers,
    root: &TrustRoot,
    environment: &Environment,
    config: &InForce,
    plan: Option<Sha256>,
    now: UnixMs,
) -> Result<()> {
    let own = papers.evidence_with(envelope, root, environment);
    // Also where only `rearm` asks for approvals.
    let assessed = evidence::assess(&own, papers, root, environment, config, After::Failure, plan, now)
        .map_err(refused)?;
    let new = papers::statement_of(envelope);
    let counts = assessed.rules.iter().flat_map(|state| &state.counted).any(|vote| vote.statement == new);
    if counts {
        return Ok(());
    }
    let uncounted = assessed.rules.iter().flat_map(|state| &state.uncounted);
    let why = uncounted.filter(|one| one.statement == new).map(|one| one.why.to_string()).next();
    Err(Failure::refused(format!(
        "this approval would not count: {}",
        why.unwrap_or_else(|| "no rule of the gate asks for it".to_owned())
    ))
    .next("nothing was handed over"))
}

/// On a terminal only: a script says --yes.
fn confirm(question: &str, version: &Version) -> Result<()> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to be asked").next("--yes signs without asking"));
    }
    // Typed, so that nobody approves by a habit of their fingers.
    let mut out = io::stderr().lock();
    let asked =
        write!(out, "\n{}.\nType the version to sign it: ", escape_line(question)).and_then(|()| out.flush());
    asked.doing(|| "failed to ask".into())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).doing(|| "failed to read the answer".into())?;
    if answer.trim() == version.as_str() {
        return Ok(());
    }
    Err(Failure::new("not approved: what was typed is not the version").next("nothing was signed"))
}

pub(super) async fn hand_over(client: &Client, envelope: Vec<u8>) -> Result<Kept> {
    let request = v1::PutStatementRequest { envelope: envelope.into() };
    let answer =
        client.operators().put_statement(unary(request)).await.map_err(|status| client.failure(status))?;
    Ok(answer.into_inner().into())
}

fn approved_text(approved: &Approved, papers: &Papers, export: Option<&std::path::Path>) -> String {
    let until = |ms| UnixMs(ms).to_string();
    let mut text = String::new();
    match (&approved.kept, export) {
        (Some(kept), _) => text.push_str(&kept_text(&papers.name(), kept)),
        (None, Some(path)) => text.push_str(&format!(
            "signed into {}; hand it over where the coordinator is reached: consign approve --from FILE\n",
            path.display()
        )),
        (None, None) => {}
    }
    text.push_str(&format!(
        "a rollout must begin before {}; servers that come later may take it until {}\n",
        until(approved.start_by_ms),
        until(approved.converge_until_ms)
    ));
    if !approved.plan_sha256.is_empty() {
        let (name, environment) = (papers.name(), &approved.evidence.environment);
        text.push_str(&format!(
            "it holds for this plan only: consign rollout start {name} --env {environment} --plan {}\n",
            approved.plan_sha256
        ));
    }
    text
}

pub(super) fn kept_text(of: &str, kept: &Kept) -> String {
    let place =
        if kept.environment.is_empty() { String::new() } else { format!(" for {}", kept.environment) };
    let what = kind(&kept.predicate);
    let mut text = match kept.novelty.as_str() {
        "known" => format!("{what} of {of}{place} was here already"),
        "outdated" => format!("{what} of {of}{place} was not kept: a newer one by the same signer is here"),
        _ => format!("{what} of {of}{place} by {}", kept.by.join(", ")),
    };
    match kept.helps.as_slice() {
        [] => text.push_str("; it counts for no gate"),
        helps => text.push_str(&format!("; it counts in {}", helps.join(", "))),
    }
    format!("{}\n", escape_line(&text))
}

fn refused(refusal: consign_common::trust::Refusal) -> Failure {
    Failure::refused(format!("{}: {refusal}", refusal.code()))
}
