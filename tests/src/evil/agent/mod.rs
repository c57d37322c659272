//! A hostile agent: it has one server's certificate and key, and speaks to a real `consign serve`. Beside it a real agent of
//! another server must not notice anything.

mod cases;
mod raw;
mod stolen;

pub use cases::{ATTACKS, Attack};

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// Plays them all; the names of those that did not end as they must.
pub fn play(attacks: &[Attack]) -> Vec<&'static str> {
    let mut world = None;
    let mut failed = Vec::new();
    for attack in attacks {
        let began = Instant::now();
        let played = catch_unwind(AssertUnwindSafe(|| {
            let stolen = world.get_or_insert_with(stolen::Stolen::start);
            (attack.play)(stolen);
            stolen.assert_serves();
        }));
        let word = if played.is_ok() { "held" } else { "FAILED" };
        println!("{word:6} {:4} ms  {}", began.elapsed().as_millis(), attack.name);
        if played.is_err() {
            failed.push(attack.name);
            world = None;
        }
    }
    failed
}
