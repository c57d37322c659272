//! Crash points: the instants around every durable write, send and exec, by name. In a debug build that is told to by its
//! environment, a process writes down each one that it passes, or kills itself at one of them; the suite `crash_points`
//! does that at every one. A release build has nothing of this: [`point`] is empty there, and the names go with it.
//!
//! | variable | holds |
//! |---|---|
//! | `CONSIGN_CRASH_COUNT` | `<subcommand>:<file>`, several with commas: its processes append the points that they pass |
//! | `CONSIGN_CRASH_AT` | the number, over all of the file, of the point at which one of them kills itself |
//!
//! The file is what is counted, not the process: a process that is started again after its kill, with the same
//! environment, goes on counting and is not killed twice.

#[cfg(debug_assertions)]
pub use counted::point;

/// Nothing, in this build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}

#[cfg(debug_assertions)]
mod counted {
    use std::{
        env,
        ffi::{OsStr, OsString},
        fs::{File, OpenOptions},
        io::{self, Seek, Write},
        path::Path,
        sync::{Mutex, OnceLock, PoisonError},
    };

    /// Bytes of a line, all alike: where an append ended up says how many lines there are, whoever else appends.
    const LINE: usize = 64;

    /// The process passes the instant of this name.
    pub fn point(name: &'static str) {
        static COUNTER: OnceLock<Option<Counter>> = OnceLock::new();
        let Some(counter) = COUNTER.get_or_init(|| Counter::from_environment(|key| env::var_os(key))) else {
            return;
        };
        match counter.pass(name) {
            Ok(number) if Some(number) == counter.die_at => die(),
            Ok(_) => {}
            // The test that counts finds fewer points than there are, and says so.
            Err(error) => eprintln!("crash point {name} is not counted: {error}"),
        }
    }

    #[derive(Debug)]
    struct Counter {
        file: Mutex<File>,
        die_at: Option<u64>,
    }

    impl Counter {
        fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
            let counts = variable("CONSIGN_CRASH_COUNT")?;
            let own = env::args_os().nth(1)?;
            // A supervisor inherits the environment of its agent.
            let mut counts = counts.to_str()?.split(',').filter_map(|count| count.split_once(':'));
            let (_, path) = counts.find(|(subcommand, _)| own == OsStr::new(subcommand))?;
            let die_at = variable("CONSIGN_CRASH_AT").and_then(|number| number.to_str()?.parse().ok());
            Self::new(Path::new(path), die_at).ok()
        }

        fn new(path: &Path, die_at: Option<u64>) -> io::Result<Self> {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            Ok(Self { file: Mutex::new(file), die_at })
        }

        /// The number of this pass, from 1.
        fn pass(&self, name: &str) -> io::Result<u64> {
            let line = format!("{name:<width$}\n", width = LINE - 1);
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(line.as_bytes())?;
            Ok(file.stream_position()? / LINE as u64)
        }
    }

    fn die() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn processes_that_share_a_file_count_on() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("points");
            let (one, other) = (Counter::new(&path, None).unwrap(), Counter::new(&path, None).unwrap());
            let numbers = [one.pass("a"), other.pass("b"), other.pass("c"), one.pass("d")];
            assert_eq!(numbers.map(Result::unwrap), [1, 2, 3, 4]);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().map(str::trim).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        }

        #[test]
        fn only_the_named_subcommand_counts() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("points");
            let count = format!("no-such-subcommand:{}", path.display());
            let variable = |key: &str| (key == "CONSIGN_CRASH_COUNT").then(|| OsString::from(&count));
            assert!(Counter::from_environment(variable).is_none());
            assert!(!path.exists());
        }
    }
}
