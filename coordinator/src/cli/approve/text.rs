//! The evidence on a terminal of eighty columns. The left column says whose word a line is.

use consign_common::{terminal::escape_line, time::UnixMs};

use super::evidence::{REARM, REQUIRE};
use crate::cli::{
    output::{Evidence, FileChanges, GateLine, Plan, Proof, RunningLine, StatementLine, StepChange},
    rollout::groups,
    text::{ago, short, size},
};

const WIDTH: usize = 80;
/// Of the marks.
const MARGIN: usize = 8;
/// File names of a kind of change, unless all are asked for.
const FILES: usize = 8;
/// Names of servers in one line.
const NAMES: usize = 6;

/// How many files are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    Some,
    All,
}

pub(super) fn text(evidence: &Evidence, files: Files, now: UnixMs) -> String {
    let mut page = Page::default();
    let name = format!("{}@{}", evidence.app, evidence.version);
    page.head(&format!("{name} to {}", evidence.environment));
    page.line(&evidence.published, &format!("sha256 {}", short(&evidence.digest, 64)));
    let size = size(evidence.bytes);
    page.line(&evidence.published, &format!("{} entries, {size}", evidence.entries));
    let published = UnixMs(evidence.published_ms);
    page.line(
        &evidence.published,
        &format!("published by {} at {published}", listed(&evidence.published.by)),
    );

    page.section("what the gate asks for");
    gate(&mut page, &evidence.gate);
    if let Some(config) = &evidence.config {
        page.line(&config.proof, &format!("config {} by {}:", config.sequence, listed(&config.proof.by)));
        for (name, value) in &config.values {
            page.line(&config.proof, &format!("  {name} = {value}"));
        }
    }

    page.section(&format!("what runs in {} now, and what changes", evidence.environment));
    for line in &evidence.running {
        running(&mut page, line, files);
    }
    if evidence.running.is_empty() {
        page.line(&Proof::told(), "no server");
    }

    page.section("what was said of it");
    for line in &evidence.statements {
        statement(&mut page, line, now);
    }
    if evidence.statements.is_empty() {
        page.line(&Proof::told(), "nothing");
    }

    page.section("where it was before");
    for line in &evidence.rollouts {
        let when = if line.ended_ms > 0 { ago(line.ended_ms, now) } else { "not ended".to_owned() };
        let receipts =
            if line.receipts == 0 { String::new() } else { format!(", by receipts of {}", line.receipts) };
        let text = format!(
            "{}: {} on {} of {} servers{receipts}, {when} (rollout {})",
            line.environment,
            line.state,
            line.succeeded,
            line.servers,
            short(&line.id, 8)
        );
        page.line(&line.proof, &text);
    }
    if evidence.rollouts.is_empty() {
        page.line(&Proof::told(), "in no rollout");
    }

    page.section("the way back");
    match &evidence.returned {
        Some(line) => {
            let (when, from) = (ago(line.at_ms, now), &line.from);
            let text = format!("{when} {} went back from {from}", listed(&line.servers));
            page.line(&line.proof, &format!("{text} (rollout {})", short(&line.rollout, 8)));
        }
        None => page.line(&Proof::told(), "no server there ever went back"),
    }

    page.section("what servers would do");
    match &evidence.plan {
        Some(plan) => planned(&mut page, plan),
        None => page.line(&Proof::told(), &evidence.plan_missing),
    }
    page.text.push_str(
        "\nproven: signed by the people named, or follows from what is; checked here with\n\
         \x20       your own trust root\n\
         told:   the coordinator says so\n",
    );
    let marks = evidence.rollouts.iter().map(|line| &line.proof);
    if marks.chain(evidence.returned.iter().map(|line| &line.proof)).any(Proof::is_false) {
        page.text.push_str("false:  the coordinator says so, and servers have signed otherwise\n");
    }
    page.text
}

/// Servers that would do the same are told of once.
fn planned(page: &mut Page, plan: &Plan) {
    let told = Proof::told();
    for (what, names) in groups(plan) {
        let names: Vec<String> = names.into_iter().map(ToOwned::to_owned).collect();
        let state = match (what.state.as_str(), what.code.as_str()) {
            ("planned", "") => String::new(),
            ("planned", code) => format!(" not yet: {code}: {}", what.because),
            (state, "") => format!(" {state}: {}", what.because),
            (state, code) => format!(" {state}: {code}: {}", what.because),
        };
        page.line(&told, &format!("{}:{state}", listed(&names)));
        for step in &what.steps {
            let because = if step.because.is_empty() { String::new() } else { format!(": {}", step.because) };
            page.line(&told, &format!("  {} {}{because}", step.decision, step.name));
        }
    }
    if !plan.digest.is_empty() {
        page.line(&told, &format!("plan {}", plan.digest));
    }
}

fn gate(page: &mut Page, lines: &[GateLine]) {
    if lines.is_empty() {
        page.line(&Proof::proven(Vec::new()), "nothing but the publisher's signature");
    }
    for line in lines.iter().filter(|line| line.part == REQUIRE) {
        // That something is missing the coordinator says: it may keep a signature back.
        let proof = if line.missing == 0 { Proof::proven(line.by.clone()) } else { Proof::told() };
        page.line(&proof, &rule(line));
        for why in &line.uncounted {
            page.line(&Proof::proven(Vec::new()), &format!("  does not count: {why}"));
        }
    }
    for line in lines.iter().filter(|line| line.part == REARM) {
        page.line(&Proof::proven(Vec::new()), &rule(line));
    }
}

/// One rule and how far it is met.
pub(crate) fn rule(line: &GateLine) -> String {
    let condition =
        if line.condition.is_empty() { String::new() } else { format!(" where {}", line.condition) };
    let asked = format!("{} by {} of {}{condition}", kind(&line.predicate), line.needed, line.role);
    if line.part == REARM {
        return format!("where the last deployment failed or was returned, signed since: {asked}");
    }
    match (line.missing, line.by.as_slice()) {
        (0, by) => format!("{asked}: {}", listed(by)),
        (missing, []) => format!("{asked}: {missing} missing"),
        (missing, by) => format!("{asked}: {}, {missing} missing", listed(by)),
    }
}

fn running(page: &mut Page, line: &RunningLine, files: Files) {
    let servers = listed(&line.servers);
    if line.digest.is_empty() {
        page.line(&Proof::told(), &format!("{servers}: nothing yet"));
    } else if line.same {
        page.line(&Proof::told(), &format!("{servers}: this very artifact"));
        return;
    } else {
        page.line(&Proof::told(), &format!("{servers}: {} ({})", line.version, short(&line.digest, 12)));
    }
    if !line.unknown.is_empty() {
        page.line(&Proof::told(), &format!("  cannot be compared: {}", line.unknown));
        return;
    }
    if line.digest.is_empty() {
        let (files, steps) = (line.files.added.len(), line.steps.len());
        page.line(&Proof::proven(Vec::new()), &format!("  all of it is new: {files} files, {steps} steps"));
        return;
    }
    file_changes(page, &line.artifact, &line.files, files);
    step_changes(page, &line.artifact, &line.steps);
}

fn file_changes(page: &mut Page, proof: &Proof, changes: &FileChanges, files: Files) {
    let FileChanges { added, removed, changed } = changes;
    let counts =
        format!("  files: {} added, {} changed, {} removed", added.len(), changed.len(), removed.len());
    page.line(proof, &counts);
    for (sign, paths) in [("+", added), ("~", changed), ("-", removed)] {
        let most = match files {
            Files::Some => FILES,
            Files::All => usize::MAX,
        };
        for path in paths.iter().take(most) {
            page.line(proof, &format!("    {sign} {path}"));
        }
        if paths.len() > most {
            page.line(proof, &format!("    {sign} and {} more (--files shows all)", paths.len() - most));
        }
    }
}

fn step_changes(page: &mut Page, proof: &Proof, changes: &[StepChange]) {
    if changes.is_empty() {
        page.line(proof, "  steps: the same");
        return;
    }
    page.line(proof, "  steps:");
    for change in changes {
        let of = match change.change.as_str() {
            "added" => format!("+ {}", change.step),
            "removed" => format!("- {}", change.step),
            "changed" => format!("~ {}", change.step),
            "order" => "~ in this order".to_owned(),
            other => format!("~ {other}"),
        };
        match change.details.as_slice() {
            [one] => page.line(proof, &format!("    {of}: {one}")),
            details => {
                page.line(proof, &format!("    {of}:"));
                for detail in details {
                    page.line(proof, &format!("        {detail}"));
                }
            }
        }
    }
}

fn statement(page: &mut Page, line: &StatementLine, now: UnixMs) {
    let mut what = kind(&line.predicate);
    if !line.result.is_empty() {
        what.push_str(&format!(" {}", line.result));
    }
    if !line.environment.is_empty() {
        what.push_str(&format!(" for {}", line.environment));
    }
    let when = ago(line.added_ms, now);
    if line.proof.is_proven() {
        page.line(&line.proof, &format!("{what} by {}, kept {when}", listed(&line.proof.by)));
    } else {
        page.line(&line.proof, &format!("{what}, signed by nobody known here, kept {when}"));
    }
}

/// A predicate type as people call it.
pub(super) fn kind(predicate: &str) -> String {
    let short = predicate.strip_prefix("consign:").or_else(|| predicate.strip_prefix(super::ATTESTATION));
    match short.and_then(|short| short.split_once('/')) {
        Some((kind, _)) => kind.to_owned(),
        None => predicate.to_owned(),
    }
}

fn listed(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES).map(String::as_str).collect();
    match names.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, text: &str) {
        self.text.push_str(&format!("{}\n", escape_line(text)));
    }

    fn section(&mut self, text: &str) {
        self.text.push_str(&format!("\n{:MARGIN$}{}\n", "", escape_line(text)));
    }

    /// One statement with its mark; what does not fit goes on below.
    fn line(&mut self, proof: &Proof, text: &str) {
        let text = escape_line(text);
        let indent = text.len() - text.trim_start().len();
        let mut mark = proof.mark;
        for part in wrapped(text.trim_start(), WIDTH - MARGIN - indent) {
            self.text.push_str(&format!("{mark:MARGIN$}{:indent$}{part}\n", ""));
            mark = "";
        }
    }
}

/// Broken at spaces, and where there is none at the width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let count = word.chars().count();
        if length > 0 && length + 1 + count > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        for character in word.chars() {
            if length == width {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            line.push(character);
            length += 1;
        }
    }
    lines.push(line);
    lines
}
