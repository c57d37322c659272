//! What to do next: a function of the state alone.

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, Failure, StepOutcome, StepSummary},
    plan::{FailurePolicy, Phase, Step},
    trust::{OnceWord, authorize::Installed},
};

use super::{
    model::{Pointers, Way},
    run::{Run, asks, finished},
    state::{Confirmation, Question, Track, Trouble, Undecided},
};

pub(super) enum Next {
    Record(Event),
    Stage,
    Evaluate { phase: Phase, step: u32 },
    Attempt(Attempt, Box<Step>),
    Restore(Installed),
    ReadClocks,
    AwaitConfirm { deadline_boot_ms: u64 },
    End { result: DeploymentOutcome, remove: Option<String>, pointers: Option<Box<Pointers>> },
    Nothing,
}

impl Run {
    pub(super) fn next(&self) -> Next {
        if self.ended.is_some() {
            return Next::Nothing;
        }
        if !self.accepted {
            return Next::Record(self.accepted_event());
        }
        match (&self.setting.way, &self.returning) {
            (_, Some(because)) => match (&self.restored, self.restored_artifact()) {
                (Some(steps), _) => {
                    self.next_step(Phase::Return, steps).unwrap_or_else(|| self.end_of_return(because))
                }
                (None, Some(artifact)) => Next::Restore(artifact.clone()),
                (None, None) => self.nothing_to_return_to(because),
            },
            (Way::Return { because }, None) => match (&self.back.trouble, &self.setting.before) {
                (Some(trouble), _) => end(cancelled(trouble.because())),
                (None, Some(artifact)) => Next::Restore(artifact.clone()),
                (None, None) => self.nothing_to_return_to(because),
            },
            (Way::Deploy { steps, .. }, None) => match (&self.staged, &self.deploy.trouble) {
                (None, _) if self.runs_already() => end(DeploymentOutcome::NoOp),
                (None, None) => Next::Stage,
                (None, Some(trouble)) => end(cancelled(trouble.because())),
                (Some(release), _) => {
                    self.next_step(Phase::Deploy, steps).unwrap_or_else(|| self.end_of_deploy(release))
                }
            },
        }
    }

    fn next_step(&self, phase: Phase, steps: &[Step]) -> Option<Next> {
        let track = self.track(phase);
        if let Some(undecided) = &track.undecided {
            return Some(match undecided.question {
                Question::Unasked => {
                    let (step, because) = (undecided.attempt.step, undecided.because.clone());
                    Next::Record(Event::Undecided { phase, step, because })
                }
                Question::Asked => Next::Nothing,
                Question::Withdrawn => end(self.unknown(undecided)),
            });
        }
        if let Some(event) = &track.decided {
            return Some(Next::Record(event.clone()));
        }
        if let Some(attempt) = track.attempt() {
            let step = steps.get(attempt.step as usize)?;
            return Some(Next::Attempt(attempt, Box::new(step.clone())));
        }
        for (index, step) in (0u32..).zip(steps).skip(track.cursor as usize) {
            if track.trouble.is_some() && !step.always {
                continue;
            }
            if !step.on.contains(&phase) {
                if track.trouble.is_some() {
                    continue;
                }
                return Some(Next::Record(out_of_phase(phase, index, step)));
            }
            if let Some(reason) = self.left_out(phase, index, step) {
                let (expression, inputs) = StepOutcome::left_out(reason);
                return Some(Next::Record(Event::Skipped { phase, step: index, expression, inputs }));
            }
            let attempts = if index == track.cursor { track.attempts } else { 0 };
            let attempt = Attempt { phase, step: index, number: attempts + 1 };
            if let Some(once) = track.once.as_ref().filter(|once| once.step == index) {
                return Some(match &once.word {
                    None => Next::Nothing,
                    Some(word) => Next::Record(self.told(attempt, word)),
                });
            }
            if step.when.is_some() && attempts == 0 {
                return Some(Next::Evaluate { phase, step: index });
            }
            // With a condition it was compared when that was evaluated.
            if let Some(message) = self.unforeseen(phase, step).filter(|_| step.when.is_none()) {
                let failure = Failure::PlanDrift { message };
                return Some(Next::Record(finished(attempt, StepOutcome::Failed { failure })));
            }
            if asks(phase, step) && attempts == 0 {
                return Some(Next::Record(Event::Awaiting { step: index }));
            }
            return Some(Next::Record(self.started(attempt)));
        }
        None
    }

    /// Why an operator leaves this step out.
    pub(super) fn left_out(&self, phase: Phase, index: u32, step: &Step) -> Option<&str> {
        let own = match self.setting.way {
            Way::Deploy { .. } => Phase::Deploy,
            Way::Return { .. } => Phase::Return,
        };
        let ordered = phase == own && self.setting.skips.contains(&step.name);
        let decided = self.track(phase).skips.get(&index).map(String::as_str);
        decided.or_else(|| ordered.then_some("left out by the order"))
    }

    /// What the answer before a `once` step comes to.
    fn told(&self, attempt: Attempt, word: &OnceWord) -> Event {
        match word {
            OnceWord::Run {} => self.started(attempt),
            OnceWord::Done { server } => {
                let (expression, inputs) = StepOutcome::ran_on(server);
                Event::Skipped { phase: attempt.phase, step: attempt.step, expression, inputs }
            }
            OnceWord::Failed { server, because } => {
                let message = format!("it failed on {server}: {because}");
                finished(attempt, StepOutcome::Failed { failure: Failure::Elsewhere { message } })
            }
        }
    }

    pub(super) fn unknown(&self, undecided: &Undecided) -> DeploymentOutcome {
        let step = self.steps(undecided.attempt.phase).get(undecided.attempt.step as usize);
        DeploymentOutcome::Unknown {
            step: step.map(|step| step.name.to_string()).unwrap_or_default(),
            because: undecided.because.clone(),
        }
    }

    fn end_of_deploy(&self, release: &str) -> Next {
        let Track { trouble, tolerated, active, .. } = &self.deploy;
        let Some(trouble) = trouble else {
            if !active {
                let because = "no `activate` step ran, so that the release never became current".to_owned();
                return self.without_effect(release, DeploymentOutcome::Failed { because });
            }
            if let Some(next) = self.next_of_confirmation() {
                return next;
            }
            return Next::End {
                result: DeploymentOutcome::Succeeded { tolerated: tolerated.clone() },
                remove: None,
                pointers: self.advanced(release),
            };
        };
        let because = trouble.because().to_owned();
        if matches!(trouble, Trouble::Failed { policy: FailurePolicy::Stop, .. }) {
            return end(DeploymentOutcome::Stopped { because });
        }
        if *active {
            return match &self.setting.good {
                Some(good) => Next::Restore(good.clone()),
                None => self.nothing_to_return_to(&because),
            };
        }
        let result = match trouble {
            Trouble::Failed { .. } => DeploymentOutcome::Failed { because },
            Trouble::Cancelled { .. } => DeploymentOutcome::Cancelled { because },
        };
        self.without_effect(release, result)
    }

    /// What a success waits for before it is good.
    fn next_of_confirmation(&self) -> Option<Next> {
        match (&self.confirmation, &self.setting.way) {
            (Confirmation::Open, Way::Deploy { confirm: Some(_), .. }) => Some(Next::ReadClocks),
            (Confirmation::Open, Way::Deploy { confirm: None, .. } | Way::Return { .. })
            | (Confirmation::Given, _) => None,
            (Confirmation::Awaited { boot_id, deadline_boot_ms }, _) => {
                if *boot_id == self.setting.boot_id {
                    return Some(Next::AwaitConfirm { deadline_boot_ms: *deadline_boot_ms });
                }
                let because = "this server was started anew before it was confirmed".to_owned();
                Some(Next::Record(Event::Unconfirmed { because }))
            }
        }
    }

    /// The release never became active: it goes, unless something else points at it.
    fn without_effect(&self, release: &str, result: DeploymentOutcome) -> Next {
        let mut kept = [&self.setting.good, &self.setting.before].into_iter().flatten();
        let in_use =
            self.setting.current == Some(self.setting.digest) || kept.any(|it| it.release == release);
        Next::End { result, remove: (!in_use).then(|| release.to_owned()), pointers: None }
    }

    fn end_of_return(&self, because: &str) -> Next {
        match (&self.back.trouble, &self.setting.way) {
            (None, _) if !self.back.active => end(DeploymentOutcome::Stopped {
                because: format!(
                    "{because}; and the return ran no `activate` step: current was not switched back"
                ),
            }),
            (None, Way::Deploy { .. }) => end(match &self.deploy.trouble {
                Some(Trouble::Cancelled { because }) => cancelled(because),
                Some(Trouble::Failed { .. }) | None => {
                    DeploymentOutcome::Returned { because: because.to_owned() }
                }
            }),
            (None, Way::Return { .. }) => Next::End {
                result: DeploymentOutcome::Succeeded { tolerated: self.back.tolerated.clone() },
                remove: None,
                pointers: Some(Box::new(Pointers {
                    good: self.setting.before.clone(),
                    before: None,
                    succeeded: None,
                })),
            },
            (Some(Trouble::Cancelled { because }), Way::Return { .. }) if !self.back.active => {
                end(cancelled(because))
            }
            (Some(Trouble::Cancelled { because: own }), Way::Deploy { .. }) if !self.back.active => {
                end(DeploymentOutcome::Stopped {
                    because: format!(
                        "{because}; and the return was cancelled ({own}): current was not switched back"
                    ),
                })
            }
            (Some(Trouble::Cancelled { because }), _) => end(DeploymentOutcome::Stopped {
                because: format!(
                    "cancelled in the middle of a return ({because}): current is switched, good is not"
                ),
            }),
            (Some(Trouble::Failed { because: own, .. }), Way::Deploy { .. }) => {
                end(DeploymentOutcome::Stopped {
                    because: format!("{because}; the return failed too: {own}"),
                })
            }
            (Some(Trouble::Failed { because: own, .. }), Way::Return { .. }) => {
                end(DeploymentOutcome::Stopped { because: format!("the return failed: {own}") })
            }
        }
    }

    /// A success: what was good becomes `before`, but for the same artifact deployed again.
    fn advanced(&self, release: &str) -> Option<Box<Pointers>> {
        let Way::Deploy { published, number, config, .. } = &self.setting.way else { return None };
        let again = self.setting.good.as_ref().is_some_and(|good| good.manifest == self.setting.digest);
        Some(Box::new(Pointers {
            good: Some(Installed {
                manifest: self.setting.digest,
                version: self.setting.version.clone(),
                published: *published,
                release: release.to_owned(),
                config: Some(config.clone()),
            }),
            before: if again { self.setting.before.clone() } else { self.setting.good.clone() },
            succeeded: Some(*number),
        }))
    }

    fn runs_already(&self) -> bool {
        let digest = Some(self.setting.digest);
        let good = self.setting.good.as_ref().map(|good| good.manifest);
        matches!(self.setting.way, Way::Deploy { force: false, .. })
            && good == digest
            && self.setting.current == digest
    }

    /// The artifact that a return of this run goes to.
    fn restored_artifact(&self) -> Option<&Installed> {
        match self.setting.way {
            Way::Deploy { .. } => self.setting.good.as_ref(),
            Way::Return { .. } => self.setting.before.as_ref(),
        }
    }

    fn nothing_to_return_to(&self, because: &str) -> Next {
        let app = &self.setting.app;
        end(DeploymentOutcome::Stopped {
            because: format!(
                "{because}; there is no earlier good artifact of {app} on this server to return to"
            ),
        })
    }

    pub(super) fn not_restorable(&self, artifact: &Installed, why: &str) -> DeploymentOutcome {
        let to = format!("cannot return to {}: {why}", artifact.version);
        DeploymentOutcome::Stopped {
            because: match &self.deploy.trouble {
                Some(trouble) => format!("{}; {to}", trouble.because()),
                None => to,
            },
        }
    }

    pub(super) fn begin_return(&self, artifact: &Installed, steps: &[Step]) -> Event {
        Event::Returning {
            because: match (&self.setting.way, &self.deploy.trouble) {
                (Way::Return { because }, _) => because.clone(),
                (Way::Deploy { .. }, trouble) => {
                    trouble.as_ref().map(|trouble| trouble.because().to_owned()).unwrap_or_default()
                }
            },
            digest: artifact.manifest,
            version: artifact.version.clone(),
            steps: summaries(steps),
        }
    }

    fn accepted_event(&self) -> Event {
        Event::Accepted {
            order: self.setting.order.clone(),
            app: self.setting.app.clone(),
            version: self.setting.version.clone(),
            digest: self.setting.digest,
            previous: self.setting.good.as_ref().map(|good| good.version.clone()),
            // A return tells its steps when it begins.
            steps: summaries(self.steps(Phase::Deploy)),
        }
    }
}

fn summaries(steps: &[Step]) -> Vec<StepSummary> {
    steps
        .iter()
        .map(|step| StepSummary { name: step.name.clone(), kind: step.kind.as_str().to_owned() })
        .collect()
}

fn out_of_phase(phase: Phase, step: u32, plan: &Step) -> Event {
    let (expression, inputs) = StepOutcome::not_for(phase, &plan.on);
    Event::Skipped { phase, step, expression, inputs }
}

fn end(result: DeploymentOutcome) -> Next {
    Next::End { result, remove: None, pointers: None }
}

fn cancelled(because: &str) -> DeploymentOutcome {
    DeploymentOutcome::Cancelled { because: because.to_owned() }
}
