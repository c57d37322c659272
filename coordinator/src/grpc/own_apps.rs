//! An identity that is for some apps only reads nothing of the others: not their rollouts, output, statements or config.

use consign_common::{digest::Sha256, name::App};
use consign_proto::v1::{self, fetch_request::What};
use tonic::Status;

use super::{Apps, Caller, Rollouts, answer::invalid};
use crate::repository::{Repository, Wanted};

/// For what is one of many: it is left out.
pub(super) fn is_own(caller: &Caller, app: &str) -> bool {
    match &caller.apps {
        Apps::All => true,
        Apps::Only(_) => app.parse().is_ok_and(|app: App| caller.apps.has(&app)),
    }
}

/// For what is asked of one app; of all together is as of another one.
pub(super) fn check_name(caller: &Caller, app: &str) -> Result<(), Status> {
    match (&caller.apps, app) {
        (Apps::All, _) => Ok(()),
        (Apps::Only(own), "") => {
            let own: Vec<&str> = own.iter().map(App::as_str).collect();
            Err(Status::failed_precondition(format!(
                "not-your-app: {} is for {} only: ask for one app",
                caller.identity,
                own.join(", ")
            )))
        }
        (Apps::Only(_), app) => caller.check_app(&app.parse().map_err(invalid)?),
    }
}

pub(super) async fn check_rollout(
    caller: &Caller,
    rollouts: &dyn Rollouts,
    rollout: &str,
) -> Result<(), Status> {
    match &caller.apps {
        Apps::All => Ok(()),
        Apps::Only(_) => {
            let request = v1::ShowRolloutRequest { rollout: rollout.to_owned() };
            check_name(caller, &rollouts.show(request).await?.app)
        }
    }
}

pub(super) async fn check_artifact(
    caller: &Caller,
    repository: &Repository,
    digest: Sha256,
) -> Result<(), Status> {
    match &caller.apps {
        Apps::All => Ok(()),
        Apps::Only(_) => caller.check_app(&repository.find(&Wanted::Digest(digest)).await?.app),
    }
}

pub(super) async fn check_fetch(
    caller: &Caller,
    repository: &Repository,
    request: &v1::FetchRequest,
) -> Result<(), Status> {
    let digests = match &request.what {
        Some(What::Manifest(digest)) => vec![digest],
        Some(What::Pack(pack)) => [&pack.from, &pack.to].into_iter().filter(|it| !it.is_empty()).collect(),
        None => Vec::new(),
    };
    for digest in digests {
        check_artifact(caller, repository, digest.parse().map_err(invalid)?).await?;
    }
    Ok(())
}

pub(super) async fn check_receipts(
    caller: &Caller,
    repository: &Repository,
    rollouts: &dyn Rollouts,
    request: &v1::ListReceiptsRequest,
) -> Result<(), Status> {
    match (request.digest.as_str(), request.rollout.as_str()) {
        ("", "") => check_name(caller, ""),
        ("", rollout) => check_rollout(caller, rollouts, rollout).await,
        (digest, _) => check_artifact(caller, repository, digest.parse().map_err(invalid)?).await,
    }
}
