//! Follows until the rollout has ended: reads the coordinator's stream, comes back by its cursor when it breaks, draws.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use consign_common::{
    deployment::log::{Record, Stream},
    time::{Clock, SystemClock, UnixMs},
};
use consign_proto::v1::FollowRolloutRequest;

use super::{
    Part,
    live::{self, Size},
    plain,
    result::{result_servers, result_table},
    view::{Change, Event, View},
};
use crate::cli::{
    client::{Client, is_transient},
    failure::{Exit, Failure, Result},
    output::Line,
    print::{Format, Printer},
    text::short,
};

/// For the word after Ctrl-C.
const PARTING: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Once the rollout has ended, this long without a word is the end of the stream.
const SILENCE: Duration = Duration::from_secs(5);

/// How happenings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    Live,
    Plain,
    Json,
}

impl Screen {
    /// A person's terminal gets the live view, everything else lines.
    pub(crate) fn choose(format: Format) -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb") || std::env::var_os("CI").is_some();
        match format {
            Format::Json => Self::Json,
            Format::Text if io::stdout().is_terminal() && !dumb => Self::Live,
            Format::Text => Self::Plain,
        }
    }
}

/// To the end of the rollout; where it stopped and rolled itself back, to the end of that.
pub(crate) async fn follow(client: &Client, rollout: &str, printer: &Printer) -> Result<Exit> {
    let mut rollout = rollout.to_owned();
    let mut stopped = None;
    tokio::spawn(end_soon_after_an_interrupt());
    loop {
        let mut follower = Follower {
            view: View::default(),
            screen: Screen::choose(printer.format()),
            printer,
            standing: Vec::new(),
            interrupted: false,
        };
        let ended = tokio::select! {
            ended = follower.until_ended(client, &rollout) => ended,
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|error| Failure::new(format!("failed to wait for signals: {error}")))?;
                follower.leave(&rollout)?;
                return Ok(Exit::Interrupted);
            }
        };
        ended?;
        match follower.finish(stopped)? {
            Finished::Rollout(exit) => return Ok(exit),
            Finished::GoesOn { exit, successor } => {
                stopped = Some(exit);
                rollout = successor;
            }
        }
    }
}

enum Finished {
    Rollout(Exit),
    /// It began another rollout, which brings servers back.
    GoesOn {
        exit: Exit,
        successor: String,
    },
}

/// The exit code of a rollout that rolled itself back: where every server is back, that is what it came to. A gate that
/// refused is told all the same.
pub(super) fn after_way_back(stopped: Exit, back: Exit) -> Exit {
    match (stopped, back) {
        (Exit::Refused, Exit::Done) => Exit::Refused,
        (_, Exit::Done) => Exit::Returned,
        (_, back) => back,
    }
}

/// A pipe that nobody reads holds up the task that writes to it, and with it the parting word after Ctrl-C.
async fn end_soon_after_an_interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    tokio::time::sleep(PARTING).await;
    #[expect(clippy::exit, reason = "nothing is half done here: the rollout is the coordinator's")]
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

struct Follower<'a> {
    view: View,
    screen: Screen,
    printer: &'a Printer,
    /// What stands at the terminal's bottom.
    standing: Vec<String>,
    /// The connection is lost, and that was said.
    interrupted: bool,
}

impl Follower<'_> {
    async fn until_ended(&mut self, client: &Client, rollout: &str) -> Result<()> {
        let mut pause = RETRY_FIRST;
        loop {
            let before = self.view.cursor();
            let status = match self.read_stream(client, rollout).await? {
                None if self.view.has_ended() => return Ok(()),
                None => tonic::Status::unavailable("the coordinator closed the stream"),
                Some(status) if is_transient(&status) => status,
                Some(status) => return Err(client.failure(status)),
            };
            if self.view.cursor() > before {
                pause = RETRY_FIRST;
            }
            self.interrupt(status.message())?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    /// Reads one stream to its end; `None` when it ended well.
    async fn read_stream(&mut self, client: &Client, rollout: &str) -> Result<Option<tonic::Status>> {
        let request =
            FollowRolloutRequest { rollout: rollout.into(), cursor: self.view.cursor(), logs: true };
        let mut stream = match client.operators().follow_rollout(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Some(status)),
        };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = tokio::time::Instant::now();
        loop {
            let woken;
            tokio::select! {
                // What has come is shown first: after a while in which nobody read, a line is not idle because we were.
                biased;
                message = stream.message() => {
                    woken = tokio::time::Instant::now();
                    heard = woken;
                    match message {
                        Ok(Some(wire)) => self.take(wire)?,
                        Ok(None) => return Ok(None),
                        Err(status) => return Ok(Some(status)),
                    }
                }
                _ = tick.tick() => {
                    woken = tokio::time::Instant::now();
                    let changes = self.view.flush_idle(SystemClock.now());
                    self.show(&changes)?;
                    if self.view.has_ended() && heard.elapsed() > SILENCE {
                        return Ok(None);
                    }
                }
            }
            // Nor because nobody took what we print.
            if woken.elapsed() > TICK {
                self.view.look_anew();
            }
        }
    }

    fn take(&mut self, wire: consign_proto::v1::FollowEvent) -> Result<()> {
        if std::mem::take(&mut self.interrupted) && self.screen == Screen::Plain {
            self.printer.note("connected to the coordinator again")?;
        }
        let Some(event) = Event::from_wire(wire) else { return Ok(()) };
        let mut lines = Vec::new();
        let changes = self.view.apply(event, |line| lines.push(line));
        if self.screen == Screen::Json {
            return lines.iter().try_for_each(|line| self.printer.json_line(line));
        }
        self.show(&changes)
    }

    fn show(&mut self, changes: &[Change]) -> Result<()> {
        match self.screen {
            Screen::Json => Ok(()),
            Screen::Plain => changes.iter().try_for_each(|change| self.printer.line(&plain::line(change))),
            Screen::Live => {
                let scrolled: Vec<String> = changes.iter().filter_map(live::scrolled).collect();
                let mut standing = live::standing(&self.view, SystemClock.now(), size());
                if self.interrupted {
                    standing
                        .push("  the coordinator is not reachable; the rollout goes on, trying again".into());
                }
                self.draw(&scrolled, standing)
            }
        }
    }

    /// Replaces what stands at the bottom: up over it, clear, what scrolls, what stands. One write, so no flicker.
    fn draw(&mut self, scrolled: &[String], standing: Vec<String>) -> Result<()> {
        if scrolled.is_empty() && standing == self.standing {
            return Ok(());
        }
        let mut text = String::new();
        if !self.standing.is_empty() {
            text.push_str(&format!("\x1b[{}A\r\x1b[J", self.standing.len()));
        }
        for line in scrolled.iter().chain(&standing) {
            text.push_str(line);
            text.push('\n');
        }
        self.standing = standing;
        self.printer.raw(&text)
    }

    fn interrupt(&mut self, because: &str) -> Result<()> {
        if std::mem::replace(&mut self.interrupted, true) {
            return self.show(&[]);
        }
        match self.screen {
            Screen::Json => self.printer.json_line(&Line::Interrupted { because: because.into() }),
            Screen::Plain => self.printer.note(&format!(
                "lost the coordinator ({because}); the rollout goes on, trying to connect again"
            )),
            Screen::Live => self.show(&[]),
        }
    }

    fn leave(&mut self, rollout: &str) -> Result<()> {
        let changes = self.view.finish();
        self.show(&changes)?;
        self.printer.note(&format!(
            "the rollout goes on without you; follow it again: consign rollout follow {}",
            short(rollout, 8)
        ))
    }

    /// `stopped`: how the rollout ended that this one brings servers back from.
    fn finish(mut self, stopped: Option<Exit>) -> Result<Finished> {
        let changes = self.view.finish();
        self.show(&changes)?;
        let rollout = self.view.whole();
        let own = Exit::of_rollout(rollout.exit_code);
        let exit = stopped.map_or(own, |stopped| after_way_back(stopped, own));
        let successor = Some(rollout.rolled_back_by.clone()).filter(|id| !id.is_empty());
        match self.screen {
            Screen::Json => {
                let line = match successor.clone() {
                    Some(successor) => Line::Successor { rollout: rollout.id.clone(), successor },
                    None => Line::End { rollout, exit_code: exit.code() },
                };
                self.printer.json_line(&line)?;
            }
            Screen::Live => {
                self.draw(&[], Vec::new())?;
                self.printer.raw(&format!("\n{}", result_table(&rollout)))?;
            }
            Screen::Plain => self.printer.raw(&result_servers(&rollout))?,
        }
        let Some(successor) = successor else { return Ok(Finished::Rollout(exit)) };
        self.printer
            .note(&format!("it rolls back by rollout {}, which is followed now", short(&successor, 8)))?;
        Ok(Finished::GoesOn { exit, successor })
    }
}

/// The terminal's width.
pub(crate) fn columns() -> usize {
    size().columns
}

fn size() -> Size {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let or = |given: Option<u16>, default| given.filter(|cells| *cells > 0).map_or(default, usize::from);
    Size { columns: or(size.map(|size| size.ws_col), 80), rows: or(size.map(|size| size.ws_row), 24) }
}

/// A record as a line of `--output json`: nothing is cut into lines, nothing is lost.
pub(crate) fn json_of_record(part: &Part, offset: u64, record: &Record) -> Line {
    let missing_bytes = record.missing();
    let text = String::from_utf8(record.data.clone()).ok().filter(|_| record.stream != Stream::Gap);
    let base64 = (text.is_none() && missing_bytes.is_none()).then(|| STANDARD.encode(&record.data));
    let UnixMs(at_ms) = record.at;
    Line::Output {
        at_ms,
        server: part.server.clone(),
        step: part.step.clone(),
        attempt: part.attempt.clone(),
        stream: record.stream.as_str(),
        offset,
        text,
        base64,
        missing_bytes,
    }
}
