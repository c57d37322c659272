//! People who use the app while it is deployed.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use consign_tests::wait::until;

use super::pool::LONG;

/// Those who ask for the page again and again, and those who ask for the slow one.
const QUICK: usize = 4;
const SLOW: usize = 2;

/// Requests without pause, each on a connection of its own.
#[derive(Debug)]
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// `shop VERSION SERVER` to how often that was answered.
    pub(super) answered: BTreeMap<String, u64>,
    pub(super) failed: Vec<String>,
}

impl Tally {
    pub(super) fn total(&self) -> u64 {
        self.answered.values().sum::<u64>() + self.failed.len() as u64
    }
}

impl Clients {
    pub(super) fn start(address: &str) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let paths = [["/"; QUICK].as_slice(), ["/slow"; SLOW].as_slice()].concat();
        let threads = paths
            .into_iter()
            .map(|path| {
                let (stop, tally, address) = (Arc::clone(&stop), Arc::clone(&tally), address.to_owned());
                thread::spawn(move || ask_until(&stop, &tally, &address, path))
            })
            .collect();
        Self { stop, tally, threads }
    }

    /// Goes on until every one of these servers has answered with this version, and then ends.
    pub(super) fn stop_after(mut self, version: &str, servers: &[&str]) -> Tally {
        until("the clients see what was deployed", LONG, || {
            let tally = self.tally.lock().unwrap();
            let seen = |server: &&str| tally.answered.contains_key(&format!("shop {version} {server}"));
            if servers.iter().all(seen) { Ok(()) } else { Err(format!("{tally:?}")) }
        });
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        std::mem::take(&mut self.tally.lock().unwrap())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask_until(stop: &AtomicBool, tally: &Mutex<Tally>, address: &str, path: &str) {
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let asked = begun.elapsed();
        let answer = get(address, path);
        let mut tally = tally.lock().unwrap();
        match answer {
            Ok(answer) => *tally.answered.entry(answer).or_default() += 1,
            Err(error) => {
                tally.failed.push(format!("{path} asked at {asked:?}, at {:?}: {error}", begun.elapsed()));
            }
        }
    }
}

/// The body of a whole answer with status 200, without its line's end; everything else is an error.
pub(super) fn get(address: &str, path: &str) -> Result<String, String> {
    let words = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(words)?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(words)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(words)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(words)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("cut off: {answer:?}"))?;
    let status = head.lines().next().unwrap_or_default();
    match (status.split(' ').nth(1), body.strip_suffix('\n')) {
        (Some("200"), Some(line)) if line.starts_with("shop ") => Ok(line.to_owned()),
        _ => Err(format!("{status}: {:?}", body.lines().next().unwrap_or_default())),
    }
}
