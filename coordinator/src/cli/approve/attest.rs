//! `consign attest`: somebody else's predicate about an artifact, most often that its tests passed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use consign_common::{
    limits::ENVELOPE_BYTES,
    name::{App, Platform, Version},
    time::{Clock as _, SystemClock},
    trust::{Predicate, Statement, Subject},
};
use serde_json::{Value, json};

use super::{
    ATTESTATION,
    commands::{hand_over, kept_text},
    papers::{self, Papers},
    text::kind,
};
use crate::cli::{
    client::Client,
    failure::{Doing, Failure, Result},
    print::Printer,
    profile::{Home, read},
    signing::KeyArgs,
    text::artifact_name,
    trust,
};

const TEST_RESULT: &str = "test-result";

#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    artifact: (App, Version),
    /// Where a version has one artifact per platform: linux-x86_64
    #[arg(long)]
    platform: Option<Platform>,
    /// The predicate's type, as the gate names it; test-result is short for
    /// https://in-toto.io/attestation/test-result/v0.1
    #[arg(long = "type", value_name = "TYPE", default_value = TEST_RESULT, value_parser = predicate_type)]
    predicate_type: String,
    /// How the tests ended, for a test-result
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        required_unless_present = "predicate",
        conflicts_with = "predicate"
    )]
    result: Option<TestResult>,
    /// Where the tests' run can be seen, for a test-result
    #[arg(long, requires = "result")]
    url: Option<String>,
    /// The predicate itself: a file with JSON
    #[arg(long, value_name = "FILE")]
    predicate: Option<PathBuf>,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TestResult {
    #[value(name = "PASSED")]
    Passed,
    #[value(name = "WARNED")]
    Warned,
    #[value(name = "FAILED")]
    Failed,
}

pub(crate) async fn run(args: AttestArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let value = value(&args)?;
    let (_, root) = trust::newest(home, client).await?;
    let key = args.key.publishers(home)?;
    key.owner(&root)?;
    let (app, version) = &args.artifact;
    let papers = papers::fetch(client, &root, (app, version), args.platform.as_ref()).await?;
    let envelope = key.sign(&statement(&papers, args.predicate_type.clone(), value))?;
    let kept = hand_over(client, envelope).await?;
    printer.show(&kept, |kept| kept_text(&papers.name(), kept))
}

fn statement(papers: &Papers, predicate_type: String, value: Value) -> Statement {
    Statement {
        subject: Subject { name: papers.name(), sha256: papers.digest },
        predicate: Predicate::Foreign { predicate_type, value },
    }
}

fn value(args: &AttestArgs) -> Result<Value> {
    let Some(result) = args.result else {
        let path = args.predicate.clone().unwrap_or_default();
        let bytes = read(&path, ENVELOPE_BYTES as u64 / 2)?;
        return serde_json::from_slice(&bytes).at("read the predicate", &path);
    };
    if kind(&args.predicate_type) != TEST_RESULT {
        return Err(Failure::usage(format!(
            "--result is of a {TEST_RESULT}, not of {}",
            args.predicate_type
        ))
        .next("give its predicate: --predicate FILE.json"));
    }
    let result = match result {
        TestResult::Passed => "PASSED",
        TestResult::Warned => "WARNED",
        TestResult::Failed => "FAILED",
    };
    // Of two results the later one counts, in whatever order they come.
    let at =
        i64::try_from(SystemClock.now().0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let mut value =
        json!({ "result": result, "configuration": [], "timeCreated": at.map(|at| at.to_string()) });
    if let (Some(url), Some(fields)) = (&args.url, value.as_object_mut()) {
        fields.insert("url".to_owned(), url.as_str().into());
    }
    Ok(value)
}

fn predicate_type(text: &str) -> Result<String, String> {
    if text == TEST_RESULT {
        return Ok(format!("{ATTESTATION}{TEST_RESULT}/v0.1"));
    }
    if text.starts_with("consign:") {
        return Err(
            "consign's own predicates have commands of their own: approve, artifact publish".to_owned()
        );
    }
    if !text.contains(':') || text.len() > 200 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a predicate type is test-result, or a URI of at most 200 characters".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_uris_or_short() {
        assert_eq!(predicate_type("test-result").unwrap(), "https://in-toto.io/attestation/test-result/v0.1");
        assert_eq!(predicate_type("https://example.com/scan").unwrap(), "https://example.com/scan");
        for bad in ["consign:approval/v1", "tests", "https://example.com/a b", ""] {
            assert!(predicate_type(bad).is_err(), "{bad}");
        }
    }
}
