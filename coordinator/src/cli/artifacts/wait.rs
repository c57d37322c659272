//! `artifact publish --wait-for ENV`: what follows from a publication, up to that environment, as plain lines; its exit
//! code is the rollout's.

use std::time::Duration;

use clap::Args;
use consign_common::{
    digest::Sha256,
    name::Environment,
    terminal::escape_line,
    time::{Clock as _, SystemClock, UnixMs},
};
use consign_proto::v1;
use tokio::time::{sleep, timeout};

use crate::{
    cli::{
        candidates,
        client::{Client, is_transient, unary},
        failure::{Exit, Failure, Result},
        follow::follow,
        output::{Candidate, Line},
        print::{Format, Printer},
        text::{parse_span, precise, span},
    },
    environments::Deploy,
};

/// Between two questions.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// And wait for the rollout that follows by itself in this environment; exits with its code. Where it is deployed
    /// `after:` another one, that one's is waited for first
    #[arg(long, value_name = "ENV")]
    wait_for: Option<Environment>,
    /// How long to wait for all of that; then it exits with 7
    #[arg(long, value_name = "SPAN", default_value = "30m", value_parser = parse_span, requires = "wait_for")]
    timeout: Duration,
}

/// The environments that follow each other from the publication on.
pub(super) struct Way {
    environments: Vec<Environment>,
    timeout: Duration,
}

impl WaitArgs {
    /// Looked at before anything is published: whether something follows at all.
    pub(super) async fn way(self, client: &Client) -> Result<Option<Way>> {
        let Some(last) = self.wait_for else { return Ok(None) };
        let request = unary(v1::ListEnvironmentsRequest {});
        let answer =
            client.operators().list_environments(request).await.map_err(|status| client.failure(status))?;
        let all = answer.into_inner().environments;
        let environments = way_to(&last, |name| {
            let found = all.iter().find(|it| it.name == name.as_str())?;
            let automation = found.settings.clone().unwrap_or_default().automation.unwrap_or_default();
            Some(automation.deploy.map_or(Ok(Deploy::Manual), |text| text.parse()).unwrap_or_default())
        })?;
        Ok(Some(Way { environments, timeout: self.timeout }))
    }
}

/// From what is published first to `last`.
fn way_to(last: &Environment, deploy: impl Fn(&Environment) -> Option<Deploy>) -> Result<Vec<Environment>> {
    let mut way = vec![last.clone()];
    loop {
        let Some(at) = way.last().cloned() else { return Ok(way) };
        match deploy(&at) {
            None => {
                return Err(Failure::new(format!("there is no environment {at}"))
                    .next("`consign env list` shows those there are"));
            }
            Some(Deploy::Manual) => {
                return Err(Failure::new(format!(
                    "nothing follows in {at} by itself: its `deploy` is \"manual\""
                ))
                .next(format!(
                    "publish without --wait-for, then consign rollout start --env {at} --follow"
                )));
            }
            Some(Deploy::OnPublish) => {
                way.reverse();
                return Ok(way);
            }
            Some(Deploy::After(before)) if way.contains(&before) => {
                return Err(Failure::new(format!("what is deployed after {before} leads back to it")));
            }
            Some(Deploy::After(before)) => way.push(before),
        }
    }
}

impl Way {
    /// Waits for the rollouts of what was published then.
    pub(super) async fn wait(
        self,
        digest: Sha256,
        published: UnixMs,
        client: &Client,
        printer: &Printer,
    ) -> Result<Exit> {
        let mut watch = Watch { digest, published, client, printer, last: String::new() };
        match timeout(self.timeout, watch.all(&self.environments)).await {
            Ok(exit) => exit,
            Err(_) => {
                let last = if watch.last.is_empty() { "nothing has happened" } else { &watch.last };
                let what = format!("it was not over within {}; last: {last}", span(self.timeout));
                Err(Failure { exit: Exit::Partial, ..Failure::new(what) }
                    .next("it goes on without this command: consign candidate list, consign rollout list"))
            }
        }
    }
}

struct Watch<'a> {
    digest: Sha256,
    published: UnixMs,
    client: &'a Client,
    printer: &'a Printer,
    /// What was told last.
    last: String,
}

impl Watch<'_> {
    async fn all(&mut self, environments: &[Environment]) -> Result<Exit> {
        for environment in environments {
            let rollout = self.until_started(environment).await?;
            self.last = format!("rollout {rollout} in {environment} runs");
            let exit = follow(self.client, &rollout, self.printer).await?;
            if exit != Exit::Done {
                return Ok(exit);
            }
        }
        Ok(Exit::Done)
    }

    /// The rollout that the candidate began with.
    async fn until_started(&mut self, environment: &Environment) -> Result<String> {
        loop {
            if let Some(candidate) = self.look(environment).await? {
                let told = candidates::because(&candidate);
                match (candidate.state.as_str(), candidate.waits_for.as_str()) {
                    ("started", _) => return Ok(candidate.rollout),
                    ("superseded", _) => return Err(ended(Exit::Aborted, environment, "superseded", &told)),
                    ("vetoed", _) => return Err(ended(Exit::Refused, environment, "vetoed", &told)),
                    (_, "hold") => {
                        return Err(ended(Exit::Refused, environment, "held", &told)
                            .next(format!("consign env show {environment}")));
                    }
                    (_, "refused" | "manual") => {
                        return Err(ended(Exit::Refused, environment, "not started", &told));
                    }
                    (_, _) => self.tell(environment, candidate, &told)?,
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn look(&self, environment: &Environment) -> Result<Option<Candidate>> {
        let request = v1::ListCandidatesRequest {
            app: String::new(),
            environment: environment.to_string(),
            digest: self.digest.to_string(),
            settled: true,
        };
        match self.client.operators().list_candidates(unary(request)).await {
            // Newest first; one of a former publication of the same bytes is another one.
            Ok(answer) => Ok(answer
                .into_inner()
                .candidates
                .into_iter()
                .find(|candidate| candidate.published_ms >= self.published.0)
                .map(Into::into)),
            Err(status) if is_transient(&status) => Ok(None),
            Err(status) => Err(self.client.failure(status)),
        }
    }

    fn tell(&mut self, environment: &Environment, candidate: Candidate, told: &str) -> Result<()> {
        let told = format!("{environment}: {}", escape_line(told));
        if self.last == told {
            return Ok(());
        }
        self.last.clone_from(&told);
        let at = SystemClock.now();
        match self.printer.format() {
            Format::Text => self.printer.line(&format!("{} {told}", precise(at))),
            Format::Json => self.printer.json_line(&Line::Candidate { at_ms: at.0, candidate }),
        }
    }
}

fn ended(exit: Exit, environment: &Environment, word: &str, told: &str) -> Failure {
    Failure { exit, ..Failure::new(format!("{word} in {environment}: {}", escape_line(told))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Environment {
        text.parse().unwrap()
    }

    #[test]
    fn the_way_to_an_environment_begins_with_the_publication() {
        let deploy = |at: &Environment| match at.as_str() {
            "staging" => Some(Deploy::OnPublish),
            "pre" => Some(Deploy::After(name("staging"))),
            "production" => Some(Deploy::After(name("pre"))),
            "demo" => Some(Deploy::Manual),
            "one" => Some(Deploy::After(name("two"))),
            "two" => Some(Deploy::After(name("one"))),
            "late" => Some(Deploy::After(name("demo"))),
            _ => None,
        };
        let way = |last: &str| way_to(&name(last), deploy);
        assert_eq!(way("production").unwrap(), [name("staging"), name("pre"), name("production")]);
        assert_eq!(way("staging").unwrap(), [name("staging")]);
        for (last, word) in
            [("demo", "manual"), ("late", "manual"), ("one", "leads back"), ("qa", "no environment")]
        {
            assert!(way(last).unwrap_err().what.contains(word), "{last}");
        }
    }
}
