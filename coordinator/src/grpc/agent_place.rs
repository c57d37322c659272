//! A server has one place, and one agent in it. Who wants it while another agent lives there is a clone, and so may the
//! other one be: both are out until a person has said which is the server.

use std::time::Duration;

use consign_common::name::ServerName;
use tonic::Status;

use super::agents::AgentParts;
use crate::fleet::{Claim, Entered, Quarantine, Session, Sign};

/// For an agent that is asked whether it lives. One that takes longer is taken for gone; if it is not, it comes back and
/// is found out then.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Takes the server's place, at once where it is free or the same agent's.
pub(super) async fn take(parts: &AgentParts, server: &ServerName, claim: &Claim) -> Result<Session, Status> {
    let mut silent = None;
    loop {
        let mut occupant = match parts.sessions.enter(server, claim, silent.as_ref()) {
            Entered::Session(session) => return Ok(session),
            Entered::Occupied(occupant) => occupant,
        };
        match occupant.sign_of_life(SIGN_OF_LIFE).await {
            Sign::Silent => silent = Some(occupant),
            Sign::Alive => {
                // It gets nothing from here on, also if what follows cannot be made durable.
                parts.sessions.disconnect(server);
                let boots = if claim.boot_id == occupant.boot_id {
                    format!("both in boot {:?}", claim.boot_id)
                } else {
                    format!("in boots {:?} and {:?}", occupant.boot_id, claim.boot_id)
                };
                let because = format!("two agents were connected under its identity at once, {boots}");
                let now = parts.clock.now();
                let quarantine = parts.registry.quarantine(server, &because, now).await?;
                return Err(end_all(parts, server, &quarantine));
            }
        }
    }
}

/// Ends whatever its agents have open, now that the quarantine is durable. What they are told.
pub(super) fn end_all(parts: &AgentParts, server: &ServerName, quarantine: &Quarantine) -> Status {
    tracing::error!(%server, because = quarantine.because,
        "quarantined: nothing is deployed to it until `consign server enable`");
    parts.sessions.disconnect(server);
    parts.enroller.allow_list.end_connections(server);
    refused(quarantine)
}

pub(super) fn refused(quarantine: &Quarantine) -> Status {
    Status::failed_precondition(format!(
        "quarantined: since {}: {}; this server gets nothing until it is enrolled anew (`consign server token --replace`, \
         `consign-agent enroll --replace`) or `consign server enable` lifts it",
        quarantine.since, quarantine.because
    ))
}
