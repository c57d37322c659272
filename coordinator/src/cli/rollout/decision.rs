//! Signed decisions: where people must approve what runs, what changes it afterwards is signed too.

use consign_common::{
    digest::Sha256,
    name::{Environment, Id, ServerName, StepName},
    time::{Clock, SystemClock},
    trust::{Decision, DecisionAction, Gate, Predicate, Statement, Subject, TrustRoot},
};
use consign_proto::v1;

use crate::cli::{
    client::{Client, unary},
    failure::{Failure, Result},
    profile::Home,
    signing::{KeyArgs, Signing},
    trust,
};

/// What is decided about a rollout.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) rollout: Id,
    pub(super) environment: Environment,
    /// The rollout's artifact.
    pub(super) artifact: Sha256,
    pub(super) name: String,
}

#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// `None`: on every server.
    pub(super) server: Option<ServerName>,
    pub(super) step: StepName,
    pub(super) action: DecisionAction,
    pub(super) reason: String,
}

/// The signatures that the rollout's environment asks for, one for each artifact that would run otherwise; none where the
/// publisher is enough.
pub(super) async fn signed(
    client: &Client,
    home: &Home,
    key: &KeyArgs,
    rollout: &str,
    verdict: Verdict,
) -> Result<Vec<Vec<u8>>> {
    let request = unary(v1::ShowRolloutRequest { rollout: rollout.to_owned() });
    let answer = client.operators().show_rollout(request).await.map_err(|status| client.failure(status))?;
    let rollout = answer.into_inner();
    let environment: Environment = rollout.environment.parse().map_err(|_| odd("environment"))?;
    let Some((key, _)) = key_for(client, home, key, &environment).await? else { return Ok(Vec::new()) };
    let id: Id = rollout.id.parse().map_err(|_| odd("rollout id"))?;
    let artifacts = match rollout.kind.as_str() {
        "return" => restored(client, &rollout, verdict.server.as_ref()).await?,
        _ => vec![rollout.digest.parse().map_err(|_| odd("digest"))?],
    };
    let sign = |artifact| {
        let about = About {
            rollout: id.clone(),
            environment: environment.clone(),
            artifact,
            name: format!("{} in rollout {}", rollout.app, id.short()),
        };
        key.sign(&statement(about, verdict.clone()))
    };
    artifacts.into_iter().map(sign).collect()
}

/// What servers go back to: on a return that is what runs.
async fn restored(
    client: &Client,
    rollout: &v1::Rollout,
    server: Option<&ServerName>,
) -> Result<Vec<Sha256>> {
    let request =
        unary(v1::ListServersRequest { environment: rollout.environment.clone(), ..Default::default() });
    let answer = client.operators().list_servers(request).await.map_err(|status| client.failure(status))?;
    let concerned = |state: &v1::Server| server.is_none_or(|server| server.as_str() == state.name);
    let mut artifacts: Vec<Sha256> = answer
        .into_inner()
        .servers
        .iter()
        .filter(|state| concerned(state))
        .flat_map(|state| &state.apps)
        .filter(|app| app.app == rollout.app)
        .filter_map(|app| app.before.parse().ok())
        .collect();
    artifacts.sort_unstable();
    artifacts.dedup();
    Ok(artifacts)
}

fn odd(what: &str) -> Failure {
    Failure::new(format!("the coordinator's answer has no {what}"))
}

/// The key to sign with, where decisions must be signed. Without a home of one's own (the coordinator's socket) there is
/// none, and servers say what is missing.
pub(super) async fn key_for(
    client: &Client,
    home: &Home,
    key: &KeyArgs,
    environment: &Environment,
) -> Result<Option<(Signing, TrustRoot)>> {
    if !home.trust_root_path().exists() {
        return Ok(None);
    }
    let (_, root) = trust::newest(home, client).await?;
    if !is_gated(&root, environment) {
        return Ok(None);
    }
    let key = key.owners(home).map_err(|failure| {
        failure.next(format!("in {environment} a decision is signed by who approves: --key FILE"))
    })?;
    key.owner(&root)?;
    Ok(Some((key, root)))
}

fn is_gated(root: &TrustRoot, environment: &Environment) -> bool {
    match root.environments.get(environment) {
        None | Some(Gate::PublisherOnly {}) => false,
        Some(Gate::Statements { .. }) => true,
    }
}

pub(super) fn statement(about: About, verdict: Verdict) -> Statement {
    let Verdict { server, step, action, reason } = verdict;
    let decision = Decision {
        environment: about.environment,
        rollout: about.rollout,
        server,
        step,
        action,
        at: SystemClock.now(),
        reason,
    };
    Statement {
        subject: Subject { name: about.name, sha256: about.artifact },
        predicate: Predicate::Decision(decision),
    }
}
