//! `http`: an address answers as it should. No redirect is followed: another place's answer is not this one's.

use std::{io::Read, time::Duration};

use consign_common::plan::HttpCheck;

use super::{AttemptLog, until};

const REQUEST: Duration = Duration::from_secs(10);
/// What is read of a body to look for `contains`.
const BODY_BYTES: u64 = 1 << 20;
/// Characters of a wrong answer that are told: enough to know whose it is, short enough for a table.
const TOLD_CHARACTERS: usize = 80;

pub(super) async fn run(check: &HttpCheck, log: &AttemptLog) -> Result<(), String> {
    until(check.within, log, |left| {
        let check = check.clone();
        async move {
            // The blocking request outlives a cancel by its own timeout at most.
            let request = tokio::task::spawn_blocking(move || ask(&check, left.min(REQUEST)));
            request.await.unwrap_or_else(|error| Err(format!("the request was given up: {error}")))
        }
    })
    .await
}

fn ask(check: &HttpCheck, within: Duration) -> Result<String, String> {
    let url = &check.url;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(within))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|error| format!("GET {url}: {error}"))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut reader = response.body_mut().as_reader().take(BODY_BYTES);
    if let Err(error) = reader.read_to_end(&mut body) {
        return Err(format!("GET {url}: {status}, and its body breaks off: {error}"));
    }
    let body = String::from_utf8_lossy(&body);
    if status != check.status {
        let expected = check.status;
        return Err(format!("GET {url}: {status}, expected {expected}: {}", excerpt(&body)));
    }
    match &check.contains {
        Some(text) if !body.contains(text.as_str()) => {
            Err(format!("GET {url}: {status}, without {text:?}: {}", excerpt(&body)))
        }
        Some(_) | None => Ok(format!("GET {url}: {status}")),
    }
}

/// The beginning, in one line; where it is shown it is escaped again.
fn excerpt(body: &str) -> String {
    let words: Vec<&str> =
        body.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(TOLD_CHARACTERS) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None if line.is_empty() => "(empty)".to_owned(),
        None => line,
    }
}
