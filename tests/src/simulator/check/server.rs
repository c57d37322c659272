//! What holds on a server: nothing runs unsaid, nothing twice, nothing out of turn, nothing that nobody signed.

use std::collections::BTreeMap;

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome},
    digest::Sha256,
    json,
    name::{App, Id},
    plan::{FailurePolicy, Phase, Retry},
    trust::{DecisionAction, OnceWord, Order},
};

use super::{Known, Oracle, Ran, Stopped, Told};
use crate::simulator::{
    catalog::Signer,
    host::Server,
    queue::{Key, Moment, Place},
};

impl Oracle {
    /// An agent takes an order up; its journal follows.
    pub(crate) fn accepted(&mut self, place: Place, order: &Order, digest: Sha256, now: Moment) {
        self.now = now;
        let open = self.deployments.iter().find(|(_, told)| {
            told.place == place && told.app == order.app && told.ended.is_none() && !told.bodies.is_empty()
        });
        let open = open.map(|(id, _)| id.clone());
        self.hold("I9", open.is_none(), || {
            format!("server {place} begins {} while {open:?} of the same app is open", order.deployment)
        });
        let seen = self.seen.entry((place, order.app.clone())).or_default();
        let term = seen.term;
        seen.term = term.max(order.term);
        self.hold("I10", order.term >= term, || {
            format!("server {place} takes an order of term {} after one of term {term}", order.term)
        });
        let signer = self.plans.get(&digest).map(|(_, signer)| *signer);
        self.hold("I1", signer == Some(Signer::Publisher), || {
            format!("server {place} takes up {digest}, signed by {signer:?}")
        });
        self.accepted.push(order.id.clone());
        let told = Told {
            place,
            app: order.app.clone(),
            rollout: order.rollout.clone(),
            digest,
            bodies: Vec::new(),
            started: Default::default(),
            settled: Default::default(),
            ran: Default::default(),
            again: Default::default(),
            done: Default::default(),
            restored: None,
            awaiting: None,
            granted: Default::default(),
            undecided: None,
            ever_undecided: Default::default(),
            confirming: None,
            confirmed: false,
            unconfirmed: false,
            ended: None,
        };
        let double = self.deployments.insert(order.deployment.clone(), told).is_some();
        self.hold("I9", !double, || format!("the deployment {} begins twice", order.deployment));
    }

    pub(crate) fn refused(&mut self, order: &Id, code: &str) {
        self.refusals.insert(order.clone(), code.to_owned());
    }

    /// The step's own process writes: I run.
    pub(crate) fn started(&mut self, place: Place, key: &Key, app: &App, now: Moment) {
        self.now = now;
        self.effects += 1;
        let (id, attempt) = key;
        let Some(told) = self.deployments.get(id) else {
            return self.hold("I2", false, || format!("{attempt} of {id} runs, and no journal knows it"));
        };
        let said = told.started.contains(attempt);
        let first = !told.ran.contains_key(attempt);
        let of_step = |it: &&Attempt| (it.phase, it.step) == (attempt.phase, attempt.step);
        let runs = told.ran.keys().filter(of_step).count() as u64 + 1;
        let again = told.again.get(&(attempt.phase, attempt.step)).copied().unwrap_or(0);
        let step = self.steps(told, attempt.phase).get(attempt.step as usize).cloned();
        let (rollout, signer) = (told.rollout.clone(), self.plans.get(&told.digest).map(|it| it.1));
        self.hold("I1", signer == Some(Signer::Publisher), || format!("{attempt} of {id} runs, unsigned"));
        self.hold("I2", said, || format!("{attempt} of {id} runs, and is not journalled as started"));
        self.hold("I3", first, || format!("{attempt} of {id} runs for the second time"));
        if let Some(step) = step {
            let most = match step.retry {
                Retry::Never if step.kind.is_process() => Some(1 + u64::from(again)),
                Retry::Never => None,
                Retry::Attempts(most) => Some(u64::from(most) + u64::from(again)),
            };
            let in_bounds = most.is_none_or(|most| runs <= most) || !step.kind.is_process();
            self.hold("I3", in_bounds, || {
                format!("step {} of {id} runs {runs} times, {most:?} are allowed", step.name)
            });
            if step.once && attempt.phase == Phase::Deploy {
                self.once_started(&rollout, &step.name, place, key);
            }
        }
        let place_of_app = self.running.entry((place, app.clone())).or_default();
        place_of_app.insert(key.clone());
        let all: Vec<String> = place_of_app.iter().map(|(id, it)| format!("{} {it}", id.short())).collect();
        self.hold("I9", all.len() == 1, || {
            format!("server {place} runs at once, of {app}: {}", all.join(", "))
        });
        if let Some(told) = self.deployments.get_mut(id) {
            told.ran.insert(*attempt, Stopped::Killed);
        }
    }

    /// Never two, but by a person's word.
    fn once_started(&mut self, rollout: &Id, step: &consign_common::name::StepName, place: Place, key: &Key) {
        let name = (rollout.clone(), step.clone());
        let again = self.allowed_again.get(&name).copied();
        let retried = self.retried.get(rollout).copied();
        let ran = self.once.entry(name).or_default();
        let since = |ran: &Ran, allowed: Option<Moment>| allowed.is_some_and(|allowed| allowed >= ran.at);
        // Of one deployment's attempts the last one says how the step went there.
        let mut last: BTreeMap<&Id, &Ran> = BTreeMap::new();
        last.extend(ran.iter().map(|ran| (&ran.key.0, ran)));
        let double = last.values().find(|earlier| {
            let failed = earlier.known == Known::Failed || earlier.called_failed;
            earlier.key.0 != key.0 && !since(earlier, again) && !(failed && since(earlier, retried))
        });
        let double = double.map(|ran| (*ran).clone());
        ran.push(Ran {
            key: key.clone(),
            at: self.now,
            stopped: None,
            known: Known::Not,
            called_failed: false,
        });
        self.hold("I3", double.is_none(), || {
            format!("the once step {step} of rollout {rollout} runs on server {place} after {double:?}")
        });
    }

    /// The step's own process writes that it ends, or whoever killed it does.
    pub(crate) fn stopped(&mut self, place: Place, key: &Key, how: Stopped, now: Moment) {
        self.now = now;
        let Some(told) = self.deployments.get_mut(&key.0) else { return };
        told.ran.insert(key.1, how);
        let app = told.app.clone();
        if let Some(running) = self.running.get_mut(&(place, app)) {
            running.remove(key);
        }
        for ran in self.once.values_mut().flatten().filter(|ran| ran.key == *key) {
            ran.stopped = Some(how);
        }
    }

    fn runs(&self, place: Place, app: &App, of: impl Fn(&Key) -> bool) -> bool {
        self.running.get(&(place, app.clone())).is_some_and(|running| running.iter().any(of))
    }

    /// An event is durable on its server.
    pub(crate) fn journalled(&mut self, server: &Server, id: &Id, event: &Event, now: Moment) {
        self.now = now;
        self.progress += 1;
        let place = server.place;
        let Some(told) = self.deployments.get_mut(id) else {
            return self.hold("I2", false, || format!("{event:?} of {id}, which was never accepted"));
        };
        let over = told.ended.is_some();
        let begins = matches!(event, Event::Accepted { .. });
        let first = told.bodies.is_empty();
        told.bodies.push(json::to_vec(event));
        let app = told.app.clone();
        self.hold("I5", begins == first, || format!("{event:?} of {id} is out of turn"));
        self.hold("I5", !over, || format!("{event:?} of {id} after its end"));
        self.one(server.boot, id, event);
        if let Event::Finished { attempt, result, .. } = event {
            let alive = self.runs(place, &app, |key| key.0 == *id && key.1 == *attempt);
            self.hold("I15", !alive, || format!("{attempt} of {id} is said to have ended, and runs"));
            let known = match result {
                StepOutcome::Succeeded | StepOutcome::Skipped { .. } => Known::Done,
                StepOutcome::Failed { .. } | StepOutcome::Cancelled => Known::Failed,
                StepOutcome::Unknown { .. } => Known::Not,
            };
            let key = (id.clone(), *attempt);
            self.once.values_mut().flatten().filter(|ran| ran.key == key).for_each(|ran| ran.known = known);
        }
        if let Event::Ended { result } = event {
            let alive = self.runs(place, &app, |key| key.0 == *id);
            self.hold("I15", !alive, || format!("{id} is said to have ended ({result:?}), and runs"));
            self.ended(server, id, result);
        }
        self.memory(server, &app);
        self.disk(server);
    }

    fn one(&mut self, boot: u64, id: &Id, event: &Event) {
        match event {
            Event::Started { attempt, .. } => self.in_order(id, *attempt),
            Event::Confirmed { .. } | Event::Unconfirmed { .. } => {
                let Some(told) = self.deployments.get(id) else { return };
                let (asked, both) = (told.confirming, told.confirmed || told.unconfirmed);
                self.hold("confirm", asked.is_some() && !both, || {
                    format!("{event:?} of {id} answers nothing")
                });
                let given = matches!(event, Event::Confirmed { .. });
                self.hold("confirm", !given || asked == Some(boot), || {
                    format!("{id} is confirmed in another boot than the one that waited for it")
                });
            }
            Event::Answered { step, .. } => {
                let awaiting = self.deployments.get(id).and_then(|told| told.awaiting);
                self.hold("I5", awaiting == Some(*step), || format!("{event:?} of {id} answers nothing"));
            }
            Event::Accepted { .. }
            | Event::Staging { .. }
            | Event::Staged { .. }
            | Event::Skipped { .. }
            | Event::Spawned { .. }
            | Event::Finished { .. }
            | Event::Returning { .. }
            | Event::Awaiting { .. }
            | Event::Undecided { .. }
            | Event::Decided { .. }
            | Event::Confirming { .. }
            | Event::Cancelling { .. }
            | Event::Ended { .. } => {}
        }
        let mut name = None;
        if let Event::Undecided { phase, step, .. } = event
            && let Some(told) = self.deployments.get(id)
        {
            name = self.steps(told, *phase).get(*step as usize).map(|step| step.name.clone());
        }
        if let Some(told) = self.deployments.get_mut(id) {
            told.ever_undecided.extend(name);
            told.fold(boot, event);
        }
    }

    /// Every earlier step of the phase has ended, or was passed over on the way out.
    fn in_order(&mut self, id: &Id, attempt: Attempt) {
        let Some(told) = self.deployments.get(id) else { return };
        let steps = self.steps(told, attempt.phase);
        let Some(step) = steps.get(attempt.step as usize) else {
            return self.hold("I5", false, || format!("{attempt} of {id} is of no step"));
        };
        let always = step.always;
        let unasked = step.once && attempt.phase == Phase::Deploy && !told.granted.contains(&attempt.step);
        let twice = told.started.contains(&attempt);
        let waits = told.undecided.is_some() || told.awaiting.is_some();
        let broken = (0..attempt.step).find(|earlier| {
            let of_step = steps.get(*earlier as usize);
            let tolerated = of_step.is_some_and(|step| step.if_fails == FailurePolicy::Continue);
            match told.settled.get(&(attempt.phase, *earlier)) {
                Some(StepOutcome::Succeeded | StepOutcome::Skipped { .. }) => false,
                Some(StepOutcome::Failed { .. }) => !always && !tolerated,
                Some(StepOutcome::Unknown { .. } | StepOutcome::Cancelled) | None => !always,
            }
        });
        self.hold("I5", broken.is_none(), || {
            format!("{attempt} of {id} starts before step {broken:?} is done")
        });
        self.hold("I5", !waits, || format!("{attempt} of {id} starts while it waits for a word"));
        self.hold("I3", !twice, || format!("{attempt} of {id} is started twice"));
        self.hold("I3", !unasked, || format!("{attempt} of {id} is `once`, and nobody was asked"));
    }

    /// A deployment's end is true.
    fn ended(&mut self, server: &Server, id: &Id, result: &DeploymentOutcome) {
        let Some(told) = self.deployments.get(id) else { return };
        let DeploymentOutcome::Succeeded { tolerated } = result else { return };
        let phase = if told.restored.is_some() { Phase::Return } else { Phase::Deploy };
        let steps = self.steps(told, phase);
        let lost = (0u32..).zip(steps).find(|(index, step)| {
            let ran = told.ran.keys().any(|it| (it.phase, it.step) == (phase, *index));
            match told.settled.get(&(phase, *index)) {
                Some(StepOutcome::Succeeded) => !ran && !told.done.contains(&(phase, *index)),
                Some(StepOutcome::Skipped { .. }) => false,
                Some(StepOutcome::Failed { .. }) => !tolerated.contains(&step.name.to_string()),
                Some(StepOutcome::Unknown { .. } | StepOutcome::Cancelled) | None => true,
            }
        });
        let lost = lost.map(|(_, step)| step.name.clone());
        let wants =
            phase == Phase::Deploy && self.plans.get(&told.digest).is_some_and(|it| it.0.confirm.is_some());
        let (confirmed, restored) = (told.confirmed, told.restored);
        let (digest, app) = (restored.unwrap_or(told.digest), told.app.clone());
        self.hold("I4", lost.is_none(), || format!("{id} succeeded without step {lost:?}"));
        self.hold("confirm", !wants || confirmed, || format!("{id} is good, and was not confirmed"));
        let good = server.disk.memory(&app).good.map(|good| good.manifest);
        self.hold("I12", good == Some(digest), || format!("{id} succeeded, and good is {good:?}"));
        let current = server.disk.current.get(&app).cloned().unwrap_or_default();
        let current = server.disk.releases.get(&(app, current)).map(|release| release.digest);
        self.hold("I11", current == Some(digest), || format!("{id} succeeded, and current is {current:?}"));
    }

    /// What a server remembers never goes back.
    fn memory(&mut self, server: &Server, app: &App) {
        let memory = server.disk.memory(app);
        let seen = self.seen.entry((server.place, app.clone())).or_default();
        let (highest, term) = (seen.highest, seen.term);
        seen.highest = highest.max(memory.highest);
        self.hold("I10", memory.highest >= highest, || format!("the highest number of {app} went back"));
        self.hold("I10", memory.term >= term, || format!("the term of {app} went back to {}", memory.term));
    }

    /// `current` is whole, and so is whatever may be returned to.
    pub(crate) fn disk(&mut self, server: &Server) {
        for (app, release) in &server.disk.current {
            let whole = server.disk.releases.contains_key(&(app.clone(), release.clone()));
            self.hold("I11", whole, || {
                format!("{}: current of {app} is {release}, which is gone", server.name)
            });
        }
        for (app, memory) in &server.disk.memories {
            for (name, pointer) in [("good", &memory.good), ("before", &memory.before)] {
                let Some(pointer) = pointer else { continue };
                let whole = server.disk.releases.contains_key(&(app.clone(), pointer.release.clone()));
                self.hold("I12", whole, || {
                    format!("{}: {name} of {app} is {}, which is gone", server.name, pointer.release)
                });
            }
        }
    }

    // What the coordinator has of it.

    /// An event of an agent is in the coordinator's store.
    pub(crate) fn stored(&mut self, id: &Id, sequence: u64, body: &[u8]) {
        self.progress += 1;
        let stored = self.stored.entry(id.clone()).or_default();
        let expected = *stored + 1;
        *stored = (*stored).max(sequence);
        let index = usize::try_from(sequence).unwrap_or(0).saturating_sub(1);
        let own = self.deployments.get(id).and_then(|told| told.bodies.get(index));
        let same = own.is_some_and(|own| own == body);
        self.hold("I7", sequence == expected, || format!("event {sequence} of {id} is taken as {expected}"));
        self.hold("I7", same, || format!("event {sequence} of {id} is not what its agent's journal says"));
    }

    /// An agent believes that the coordinator has everything up to this.
    pub(crate) fn acknowledged(&mut self, id: &Id, sequence: u64) {
        let stored = self.stored.get(id).copied().unwrap_or(0);
        self.hold("I7", sequence <= stored, || {
            format!("{id} is acknowledged up to {sequence}, and stored up to {stored}")
        });
    }

    pub(crate) fn disowned(&mut self, id: &Id) {
        let known = self.deployments.contains_key(id);
        self.hold("I7", !known, || {
            format!("the coordinator does not know the deployment {id} that it ordered")
        });
    }

    pub(crate) fn log_stored(&mut self, key: &Key, length: u64) {
        let stored = self.logs.entry(key.clone()).or_default();
        let before = std::mem::replace(stored, length);
        self.hold("I8", length >= before, || format!("the log of {key:?} shrinks from {before} to {length}"));
    }

    pub(crate) fn log_acknowledged(&mut self, key: &Key, length: u64) {
        let stored = self.logs.get(key).copied().unwrap_or(0);
        self.hold("I8", length <= stored, || {
            format!("the log of {key:?} is acknowledged up to {length}, and stored up to {stored}")
        });
    }
}

impl Told {
    fn fold(&mut self, boot: u64, event: &Event) {
        match event {
            Event::Started { attempt, .. } => drop(self.started.insert(*attempt)),
            Event::Finished { attempt, result, .. } => {
                self.settled.insert((attempt.phase, attempt.step), result.clone());
            }
            Event::Skipped { phase, step, expression, inputs } => {
                let outcome = StepOutcome::Skipped { expression: expression.clone(), inputs: inputs.clone() };
                self.settled.insert((*phase, *step), outcome);
            }
            Event::Returning { digest, .. } => self.restored = Some(*digest),
            Event::Awaiting { step } => self.awaiting = Some(*step),
            Event::Answered { step, word, .. } => {
                self.awaiting = None;
                if *word == (OnceWord::Run {}) {
                    self.granted.insert(*step);
                }
            }
            Event::Undecided { phase, step, .. } => self.undecided = Some((*phase, *step)),
            Event::Decided { phase, step, action, .. } => {
                let about = (*phase, *step);
                self.undecided = self.undecided.filter(|undecided| *undecided != about);
                self.awaiting = self.awaiting.filter(|step| (Phase::Deploy, *step) != about);
                match action {
                    DecisionAction::Again => *self.again.entry(about).or_default() += 1,
                    DecisionAction::Done => drop(self.done.insert(about)),
                    DecisionAction::Failed | DecisionAction::Skip => {}
                }
            }
            Event::Confirming { .. } => self.confirming = Some(boot),
            Event::Confirmed { .. } => self.confirmed = true,
            Event::Unconfirmed { .. } => self.unconfirmed = true,
            // A cancel while it waits: nobody will answer any more.
            Event::Cancelling { .. } => self.awaiting = None,
            Event::Ended { result } => self.ended = Some(result.clone()),
            Event::Accepted { .. } | Event::Staging { .. } | Event::Staged { .. } | Event::Spawned { .. } => {
            }
        }
    }
}
