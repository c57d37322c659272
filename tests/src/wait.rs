//! Waiting for a condition, never for a time: a test that is slow is late, not wrong.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// Asks until the answer is `Some`, and panics with `what` and the last word when that takes longer than `longest`.
pub fn until<T, W: Debug>(what: &str, longest: Duration, mut ask: impl FnMut() -> Result<T, W>) -> T {
    let deadline = Instant::now() + longest;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if Instant::now() > deadline => {
                panic!("{what}: not within {longest:?}; last seen: {why:?}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
}
