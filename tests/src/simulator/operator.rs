//! People: they start, stop, decide and change their minds, mostly in ways that make sense.

use std::collections::BTreeMap;

use consign_common::{
    name::{App, ServerName, StepName},
    time::UnixMs,
    trust::{DecisionAction, Foreseen},
};
use consign_coordinator::{
    rollout::{
        End, Final, GroupBudget, HealthCheck, Kind, Offline, OnStop, OnceState, Phase, Probe, Rollout,
        ServerState, Strategy, Verb,
    },
    rollouts::{Again, Pinned, Queueing, RolloutRow},
};

use super::{
    around::Around,
    catalog::Signer,
    coordinator::{After, Coordinator},
    queue::Place,
    verbs::Wish,
};

const ZONES: [&str; 2] = ["a", "b"];

impl Coordinator {
    /// One act of somebody.
    pub(super) fn operator(&mut self, around: &mut Around) {
        if !around.coordinator_up {
            return;
        }
        around.counts.verbs += 1;
        match around.random.below(100) {
            0..=16 => self.starts_something(around),
            17..=26 => self.retries(around),
            27..=31 => self.rolls_back(around),
            32..=42 => self.lifts(around),
            43..=46 => self.toggles(around),
            47..=72 => self.decides(around),
            _ => self.presses(around),
        }
    }

    fn starts_something(&mut self, around: &mut Around) {
        let wish = wish(around);
        around.say(|| format!("operator: start {} in waves {:?}", wish.app, wish.waves));
        self.acts(around, |this, around, after| this.start(around, wish, after));
    }

    /// The newest rollout of an app, where it did not go through; one that goes on is aborted for it.
    fn retries(&mut self, around: &mut Around) {
        let apps = around.apps.clone();
        let Some(app) = around.random.pick(&apps) else { return };
        let Some(row) = self.store.newest_of(app).cloned() else { return };
        match &row.state.phase {
            Phase::Ended { verdict } if verdict.state != Final::Succeeded => {
                self.press(around, row, Verb::Retry);
            }
            Phase::Ended { .. } => {}
            Phase::Queued { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Aborting { .. } => {
                if around.random.chance(300) {
                    self.press(around, row, Verb::Abort);
                }
            }
        }
    }

    fn rolls_back(&mut self, around: &mut Around) {
        let deploys: Vec<RolloutRow> =
            self.store.rollouts.iter().filter(|row| row.state.kind == Kind::Deploy).cloned().collect();
        let newest = deploys.len().saturating_sub(2);
        let Some(source) = around.random.pick(&deploys[newest..]).cloned() else { return };
        around.say(|| format!("operator: rollback of {}", source.id.short()));
        self.acts(around, |this, around, after| this.rollback(around, source, after));
    }

    fn lifts(&mut self, around: &mut Around) {
        let apps = around.apps.clone();
        let Some(app) = around.random.pick(&apps).cloned() else { return };
        self.lifts_of(around, &app);
    }

    fn lifts_of(&mut self, around: &mut Around, app: &App) {
        around.say(|| format!("operator: lift-hold {app}"));
        self.acts(around, |this, around, after| this.lift_hold(around, app, after));
    }

    fn toggles(&mut self, around: &mut Around) {
        let Some(server) = around.random.pick(&self.store.enrolled).cloned() else { return };
        around.say(|| format!("operator: disable or enable {server}"));
        // Most of the time all are enabled.
        if self.store.disabled.len() > 1 {
            self.store.disabled.clear();
        } else if self.store.disabled.remove(&server).is_none() {
            self.store.disabled.insert(server, "a disk is swapped".to_owned());
        }
    }

    fn presses(&mut self, around: &mut Around) {
        let Some(row) = self.some_rollout(around) else { return };
        let server = around.random.pick(&row.state.members).map(|member| member.server.clone());
        let Some(server) = server else { return };
        // What makes sense, and now and then what does not.
        let choice = match (&row.state.phase, row.state.paused.is_some()) {
            _ if around.random.chance(150) => around.random.below(8),
            (Phase::Ended { .. }, _) => 4,
            (_, true) => around.random.between(1, 3),
            (_, false) => around.random.one_of(&[0, 0, 0, 3, 6, 7]),
        };
        let verb = match choice {
            0 => Verb::Pause,
            1 | 2 => Verb::Resume,
            3 => Verb::Abort,
            4 | 5 => Verb::Retry,
            6 => Verb::SkipServer { server },
            _ => {
                let server = around.random.chance(500).then_some(server);
                Verb::SkipStep { step: step_name(around.random.below(5)), server }
            }
        };
        self.press(around, row, verb);
    }

    /// Somebody looks at what is undecided, or decides what nobody asked.
    fn decides(&mut self, around: &mut Around) {
        let undecided = self.undecided();
        let action = around.random.one_of(&[
            DecisionAction::Done,
            DecisionAction::Failed,
            DecisionAction::Again,
            DecisionAction::Skip,
        ]);
        if let Some((row, server, step)) = around.random.pick(&undecided).cloned() {
            return self.press(around, row, Verb::Decide { server, step, action });
        }
        let Some(row) = self.some_rollout(around) else { return };
        let server = around.random.pick(&row.state.members).map(|member| member.server.clone());
        let Some(server) = server.filter(|_| around.random.chance(200)) else { return };
        let step = step_name(around.random.below(5));
        self.press(around, row, Verb::Decide { server, step, action });
    }

    /// What waits for a person's decision: undecided steps, and `once` steps whose server is lost.
    fn undecided(&self) -> Vec<(RolloutRow, ServerName, StepName)> {
        let mut all = Vec::new();
        for row in &self.store.rollouts {
            for member in &row.state.members {
                if let ServerState::Ended { end: End::Unknown { step: Some(step), .. } } = &member.state {
                    all.push((row.clone(), member.server.clone(), step.clone()));
                }
            }
            for (step, server) in lost(&row.state) {
                all.push((row.clone(), server, step));
            }
        }
        all
    }

    fn press(&mut self, around: &mut Around, row: RolloutRow, verb: Verb) {
        around.say(|| format!("operator: {verb} of {}", row.id.short()));
        let act = |this: &mut Self, around: &mut Around, after: &mut After| {
            this.press_on(around, row, verb, "by ann", after)
        };
        self.acts_at_once(around, act, |_| {});
    }

    /// Mostly one that is going on.
    fn some_rollout(&self, around: &mut Around) -> Option<RolloutRow> {
        let open: Vec<&RolloutRow> = self.store.open().collect();
        if !open.is_empty() && around.random.chance(700) {
            return around.random.pick(&open).map(|row| (*row).clone());
        }
        let newest = self.store.rollouts.len().saturating_sub(3);
        around.random.pick(&self.store.rollouts[newest..]).cloned()
    }

    /// Everything that waits for a person gets its word.
    pub(super) fn everybody_speaks(&mut self, around: &mut Around) {
        for (row, server, step) in self.undecided() {
            let action = around.random.one_of(&[DecisionAction::Done, DecisionAction::Failed]);
            // As it is now: an earlier word may have changed it.
            if let Some(row) = self.store.rollout(&row.id).cloned() {
                let verb = Verb::Decide { server, step, action };
                if self.store.newest_of(&row.app).is_some_and(|newest| newest.id == row.id)
                    || !row.is_ended()
                    || row.state.is_under_way()
                {
                    self.press(around, row, verb);
                }
            }
        }
        let paused: Vec<RolloutRow> =
            self.store.open().filter(|row| row.state.paused.is_some()).cloned().collect();
        for row in paused {
            self.press(around, row, Verb::Resume);
        }
        for app in around.apps.clone() {
            if self.store.holds.contains_key(&app) {
                self.lifts_of(around, &app);
            }
        }
    }

    pub(super) fn enrols(&mut self, around: &Around, server: Place) {
        let name = around.names[server].clone();
        self.store.enrolled.push(name);
        self.store.enrolled.sort();
    }
}

fn lost(state: &Rollout) -> Vec<(StepName, ServerName)> {
    let lost = state.once.iter().filter_map(|(step, once)| match &once.state {
        OnceState::Unknown { server, .. } => Some((step.clone(), server.clone())),
        OnceState::Open | OnceState::Granted { .. } | OnceState::Done { .. } | OnceState::Failed { .. } => {
            None
        }
    });
    lost.collect()
}

fn step_name(index: u64) -> StepName {
    format!("s{index}").parse().unwrap()
}

fn wish(around: &mut Around) -> Wish {
    let apps = around.apps.clone();
    let app = around.random.pick(&apps).cloned().unwrap_or_else(|| "shop".parse().unwrap());
    let own: Vec<usize> = (0..around.catalog.artifacts.len())
        .filter(|place| around.catalog.artifacts[*place].manifest.app == app)
        .collect();
    let now = around.unix();
    let artifact = match around.random.pick(&own).copied().filter(|_| around.random.chance(400)) {
        Some(old) => {
            if around.random.chance(700) {
                around.catalog.publish_again(old, now);
            }
            old
        }
        None => {
            let signer = if around.random.chance(40) { Signer::Stranger } else { Signer::Publisher };
            let place = around.catalog.publish(&mut around.random, &app, signer, now);
            let artifact = &around.catalog.artifacts[place];
            around.oracle.published(artifact.digest, &artifact.plan, signer);
            place
        }
    };
    let confirm_ms = around.catalog.artifacts[artifact].plan.confirm.map_or(0, |span| span.as_secs() * 1000);
    let waves = around.random.pick(&WAVES).map(|waves| waves.to_vec()).unwrap_or_default();
    Wish {
        app,
        artifact,
        waves,
        strategy: strategy(around, confirm_ms),
        queueing: around.random.one_of(&[
            Queueing::Queue,
            Queueing::Queue,
            Queueing::Supersede,
            Queueing::Refuse,
        ]),
        not_before: if around.random.chance(80) { UnixMs(now.0 + 120_000) } else { UnixMs(0) },
        again: if around.random.chance(100) { Again::Force } else { Again::LeaveAlone },
        zone: around.random.chance(150).then(|| around.random.one_of(&ZONES)),
        canary: around.random.chance(200),
        pinned: around.random.chance(100).then(|| pinned(around, artifact)),
    }
}

/// As if a preview had said so; sometimes it comes out otherwise.
fn pinned(around: &mut Around, artifact: usize) -> Pinned {
    let artifact = &around.catalog.artifacts[artifact];
    let steps = artifact.plan.steps.iter().filter(|step| step.when.is_some()).map(|step| step.name.clone());
    let steps: Vec<StepName> = steps.collect();
    let mut servers = BTreeMap::new();
    for server in &around.names {
        let foreseen = around.random.one_of(&[Foreseen::Run, Foreseen::Skip]);
        servers.insert(server.clone(), steps.iter().map(|step| (step.clone(), foreseen)).collect());
    }
    Pinned { digest: artifact.digest, servers }
}

const WAVES: [&[&str]; 6] = [&[], &["1", "100%"], &["50%"], &["1", "50%", "100%"], &["1"], &["2"]];

/// A verdict on a wave mostly comes before servers that wait to be confirmed return.
fn strategy(around: &mut Around, confirm_ms: u64) -> Strategy {
    let random = &mut around.random;
    let longest = |most: u64| if confirm_ms == 0 { most } else { most.min(confirm_ms / 4).max(1001) };
    Strategy {
        bake_ms: if random.chance(300) { random.span(1000, longest(300_000)) } else { 0 },
        failures: random.one_of(&[0, 0, 1, 1, 2]),
        group: random.chance(200).then(|| GroupBudget { label: "zone".to_owned(), failures: 1 }),
        min_healthy: random.one_of(&[0, 0, 0, 1, 1, 2, 3]),
        offline: match random.below(3) {
            0 => Offline::Fail,
            1 => Offline::Wait { ms: random.span(1000, longest(600_000)) },
            _ => Offline::Owe,
        },
        health: random.chance(250).then(|| HealthCheck {
            probe: Probe::Command { name: "healthy".to_owned() },
            within_ms: random.span(1000, longest(60_000)),
        }),
        on_stop: if random.chance(400) { OnStop::Rollback } else { OnStop::Pause },
        confirm_ms: 0,
    }
}
