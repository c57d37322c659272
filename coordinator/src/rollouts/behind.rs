//! A coordinator that was restored from a backup. Its agents are ahead of it: they have seen terms that it never gave, run
//! deployments that it does not know, and were told that it has what it lost. It asks for what it can get back, and stops
//! where only a person knows what happened since.

use std::{collections::BTreeMap, sync::Arc};

use consign_common::name::{App, Environment, Id, ServerName};

use super::{
    admission::NotStarted,
    controller::{Controller, ControllerError},
    rows::Behind,
    store::{self, Noted},
};
use crate::fleet::{AppReport, Lost, ToAgent};

impl Controller {
    /// An agent said what it has seen: if that is more than this coordinator gave, it stops there. Before the agent is
    /// sent anything.
    pub async fn compare(
        &self,
        server: &ServerName,
        environment: &Environment,
        apps: &BTreeMap<App, AppReport>,
        open: &[Id],
    ) -> Result<(), ControllerError> {
        for (app, report) in apps.iter().filter(|(_, report)| report.term > 0) {
            if report.term <= store::term(self.store.read(), app, environment).await? {
                continue;
            }
            let mut write = self.store.write().await?;
            let now = self.clock.now();
            let noted = store::mark_behind(&mut write, app, environment, server, report.term, now).await?;
            write.commit().await?;
            if noted == Noted::News {
                tracing::error!(%app, %environment, %server, term = report.term,
                    "behind: an agent has seen a term that this coordinator never gave; it was restored from a backup, \
                     and starts nothing there until `consign env take-over`");
            }
        }
        for deployment in open {
            let known = store::deployment(self.store.read(), deployment).await?;
            if known.is_none_or(|row| row.server != *server) {
                self.unknown(server, deployment).await?;
            }
        }
        self.ask_for_the_lost(server, open).await
    }

    /// Deployments that are under way here and not at the agent have ended there. Their end is on its way, or it was
    /// told to a later coordinator than this one.
    async fn ask_for_the_lost(&self, server: &ServerName, open: &[Id]) -> Result<(), ControllerError> {
        for rollout in store::open(self.store.read()).await? {
            if !rollout.state.member(server).is_some_and(|member| member.state.is_ordered()) {
                continue;
            }
            if let Some(row) = store::deployment_on(self.store.read(), &rollout.id, server).await?
                && !open.contains(&row.id)
            {
                let lost = Lost::EventsAfter(row.sequence);
                self.sessions.send(server, ToAgent::Resend { deployment: row.id, lost });
            }
        }
        Ok(())
    }

    /// An agent told of a deployment that is not here: said once, and counted.
    pub async fn unknown(&self, server: &ServerName, deployment: &Id) -> Result<(), ControllerError> {
        if store::is_noted(self.store.read(), server, deployment).await? {
            return Ok(());
        }
        let mut write = self.store.write().await?;
        let noted = store::note_unknown(&mut write, server, deployment, self.clock.now()).await?;
        write.commit().await?;
        if noted == Noted::News {
            tracing::warn!(%server, %deployment, "its agent tells of a deployment that is not known here");
        }
        Ok(())
    }

    /// Where agents are ahead of this coordinator.
    pub async fn behind(&self) -> Result<Vec<Behind>, ControllerError> {
        Ok(store::all_behind(self.store.read()).await?)
    }

    /// A person has looked at what runs there: the coordinator goes on, above every term that was seen. Gives what it was,
    /// and the new term.
    pub async fn take_over(
        self: &Arc<Self>,
        app: &App,
        environment: &Environment,
        reason: &str,
        by: &str,
    ) -> Result<(Behind, u64), NotStarted> {
        let mut write = self.store.write().await?;
        let Some(behind) = store::behind(&mut *write, app, environment).await? else {
            return Err(NotStarted::NotBehind { app: app.clone(), environment: environment.clone() });
        };
        let term = store::take_over(&mut write, &behind, by, reason, self.clock.now()).await?;
        write.commit().await?;
        tracing::info!(%app, %environment, seen = behind.term, server = %behind.server, term, by, reason, "taken over");
        // What was held back meanwhile.
        for server in self.registry.list().await? {
            if server.environment == *environment && self.sessions.is_online(&server.name) {
                self.connected(&server.name).await?;
            }
        }
        Ok((behind, term))
    }
}
