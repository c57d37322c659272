//! What operators do to a rollout: every verb is the engine's to allow, and is recorded with who and why.

use std::sync::Arc;

use super::{
    admission::{self, NotStarted},
    after::After,
    controller::Controller,
    drive::{Happened, add_deployment},
    orders,
    rows::{HistoryRow, RolloutRow},
    show::Shown,
    store::{self, Write},
    succession::{is_active, open_of},
};
use crate::rollout::{self, Event, Kind, ServerState, Verb};

impl Controller {
    /// `given` is the rollout's id, or the beginning of it.
    pub async fn press(
        self: &Arc<Self>,
        given: &str,
        verb: Verb,
        reason: &str,
        by: &str,
    ) -> Result<Shown, NotStarted> {
        let row = self.show(given).await?.row;
        admission::check_behind(self.store.read(), &row.app, &row.environment).await?;
        if let (Verb::SkipStep { step, .. }, Kind::Deploy) = (&verb, row.state.kind) {
            let plan = admission::read_plan(&self.repository.manifest(row.digest).await?)?;
            admission::check_skips(&plan, std::slice::from_ref(step))?;
        }
        let id = row.id;
        let mut after = After::default();
        let mut write = self.store.write().await?;
        let row = store::rollout(&mut *write, &id).await?;
        let row = row.ok_or_else(|| NotStarted::RolloutUnknown { given: id.to_string() })?;
        self.press_on(&mut write, row, verb, reason, by, &mut after).await?;
        write.commit().await?;
        self.perform(after).await?;
        self.show_exactly(&id).await
    }

    pub(super) async fn press_on(
        self: &Arc<Self>,
        write: &mut Write,
        mut row: RolloutRow,
        verb: Verb,
        reason: &str,
        by: &str,
        after: &mut After,
    ) -> Result<(), NotStarted> {
        let now = self.clock.now();
        let reopens = match &verb {
            // What servers converge to goes on already, though something newer was meant that brought nothing.
            Verb::Retry | Verb::Decide { .. } => row.is_ended() && !row.state.is_under_way(),
            Verb::Pause | Verb::Resume | Verb::Abort | Verb::SkipServer { .. } | Verb::SkipStep { .. } => {
                false
            }
        };
        if reopens {
            refuse_if_superseded(write, &row).await?;
        }
        let because = said(&verb, reason, by);
        let (next, commands) = rollout::press(row.state.clone(), verb.clone(), &because, now)?;
        tracing::info!(rollout = %row.id, verb = verb.as_str(), by, reason, "an operator's word");
        let line =
            HistoryRow { at: now, who: by.to_owned(), what: verb.to_string(), because: reason.to_owned() };
        store::add_history(write, &row.id, &line).await?;
        let mut happened = Happened::new();
        if verb == Verb::Retry {
            row.term = store::raise_term(write, &row.app, &row.environment).await?;
            row.asked = now;
            for member in next.members.iter().filter(|member| member.state == ServerState::Pending) {
                // What a server was told of the deployment before, and has not heard, it is not to begin any more.
                if let Some(before) = store::deployment_on(&mut **write, &row.id, &member.server).await? {
                    store::answer_orders(write, &before.id, orders::REPLACED, now).await?;
                }
                add_deployment(write, &row, &member.server).await?;
            }
        }
        let (app, environment) = (row.app.clone(), row.environment.clone());
        self.settle(write, row, next, commands, after, &mut happened).await?;
        if verb == Verb::Retry {
            let next = self.next_to_begin(write, &app, &environment).await?;
            happened.extend(next.map(|next| (next, Event::Begin)));
        }
        Ok(self.drive(write, happened, after).await?)
    }
}

/// What has ended may only be taken up again while nothing newer was meant for the environment.
async fn refuse_if_superseded(write: &mut Write, row: &RolloutRow) -> Result<(), NotStarted> {
    let newest = store::list(&mut **write, Some(&row.app), Some(&row.environment), 1).await?;
    let newer = newest.into_iter().next().filter(|newest| newest.id != row.id);
    let active = open_of(write, &row.app, &row.environment).await?.into_iter();
    let active = active.filter(is_active).find(|active| active.id != row.id);
    match newer.or(active) {
        Some(newer) => Err(NotStarted::Superseded { rollout: row.id.clone(), newer: newer.id }),
        None => Ok(()),
    }
}

/// Who, what and why, as servers and later readers get it.
fn said(verb: &Verb, reason: &str, by: &str) -> String {
    let what = match verb {
        Verb::Pause => "paused",
        Verb::Resume => "resumed",
        Verb::Abort => "aborted",
        Verb::Retry => "retried",
        Verb::SkipServer { .. } | Verb::SkipStep { .. } => "left out",
        Verb::Decide { .. } => "decided",
    };
    if reason.is_empty() { format!("{what} by {by}") } else { format!("{what} by {by}: {reason}") }
}
