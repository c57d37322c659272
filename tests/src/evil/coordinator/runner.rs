//! Plays attacks, and looks at the server afterwards.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use consign_common::deployment::DeploymentOutcome;

use super::{
    attack::{Attack, Outcome, Place, Play},
    world::{Failed, Setting, Shot, World},
};

/// A world is shared by the attacks that leave it as it was.
#[derive(Default)]
pub struct Runner {
    shared: Option<World>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl Runner {
    /// Plays them all; the names of those that did not end as they must.
    pub fn play(&mut self, attacks: &[Attack]) -> Vec<&'static str> {
        attacks.iter().filter(|attack| !self.one(attack)).map(|attack| attack.name).collect()
    }

    fn one(&mut self, attack: &Attack) -> bool {
        let began = Instant::now();
        let played = catch_unwind(AssertUnwindSafe(|| match (attack.play, attack.place) {
            (Play::Alone(play), _) => play(),
            (_, Place::Own) => play(attack, &mut World::start(Setting::USUAL)),
            (_, Place::Shared) => {
                play(attack, self.shared.get_or_insert_with(|| World::start(Setting::USUAL)));
            }
        }));
        let word = if played.is_ok() { "held" } else { "FAILED" };
        println!("{word:6} {:4} ms  {}", began.elapsed().as_millis(), attack.name);
        if played.is_err() {
            // Whatever it left is not what the next one expects.
            self.shared = None;
        }
        played.is_ok()
    }
}

fn play(attack: &Attack, world: &mut World) {
    match attack.play {
        Play::Shots(make) => {
            for (at, shot) in make(world).iter().enumerate() {
                let before = world.snapshot();
                assert_held(attack, world, shot, at);
                before.assert_same(&world.snapshot(), &format!("{}, order {at}", attack.name));
            }
        }
        Play::Roots(make) => {
            for (at, chain) in make(world).into_iter().enumerate() {
                let before = world.snapshot();
                let (version, error) = world.offer(chain);
                assert_eq!(version, world.root.version, "{}, chain {at}: {error}", attack.name);
                let Outcome::RootRefused(why) = attack.outcome else { panic!("{attack:?}") };
                assert!(error.contains(why), "{}, chain {at}: {error:?}", attack.name);
                before.assert_same(&world.snapshot(), &format!("{}, chain {at}", attack.name));
            }
        }
        Play::Free(play) => play(world),
        Play::Alone(play) => play(),
    }
    world.honest();
}

fn assert_held(attack: &Attack, world: &mut World, shot: &Shot, at: usize) {
    let name = attack.name;
    world.send(shot);
    match attack.outcome {
        Outcome::Refused(code) => {
            assert_eq!(world.refusal_of(shot), code, "{name}, order {at}");
            assert_eq!(world.journalled(&shot.id).as_deref(), Some(code), "{name}, order {at}: journalled");
        }
        Outcome::Answered(code) => {
            let before = world.journalled(&shot.id);
            assert_eq!(world.refusal_of(shot), code, "{name}, order {at}");
            assert_eq!(world.journalled(&shot.id), before, "{name}, order {at}: the journal");
        }
        Outcome::Dropped => {
            world.assert_silence();
            assert_eq!(world.journalled(&shot.id), None, "{name}, order {at}");
            assert!(world.agent.log().contains("an order that"), "{name}: {}", world.agent.log());
        }
        Outcome::Nothing => world.assert_silence(),
        Outcome::SessionEnds => {
            world.session();
            assert_eq!(world.journalled(&shot.id), None, "{name}, order {at}");
        }
        Outcome::Ends(how) => {
            let outcome = world.outcome_of(shot);
            assert_eq!(outcome.as_str(), how, "{name}, order {at}: {outcome:?}");
            if matches!(outcome, DeploymentOutcome::Failed { .. }) {
                world.failed = Some(Failed);
            }
        }
        Outcome::NoSession | Outcome::RootRefused(_) | Outcome::Remains(_) => {
            panic!("{name}: this is not shown by an order")
        }
    }
}
