//! Servers and time: one line per attempt at a server, scaled to the width.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use consign_common::{terminal::escape_line, time::UnixMs};
use consign_proto::v1;

use super::resolve::resolve;
use crate::cli::{
    client::{Client, unary},
    failure::{Exit, Result},
    follow::{columns, result_line},
    output::{Bar, Timeline},
    print::Printer,
    text::{precise, span},
};

/// Characters of a server's name, and of a state.
const NAME: usize = 24;
const STATE: usize = 12;
/// Fewer columns than this for time say nothing.
const LEAST: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    Plain,
    Colours,
}

/// What a person should think of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tone {
    Empty,
    Waits,
    Runs,
    Good,
    Doubtful,
    Bad,
}

pub(super) async fn run(given: &str, client: &Client, printer: &Printer) -> Result<Exit> {
    let request = v1::ShowTimelineRequest { rollout: resolve(client, given).await? };
    let answer =
        client.operators().show_timeline(unary(request)).await.map_err(|status| client.failure(status))?;
    let plain = !std::io::stdout().is_terminal()
        || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("CI").is_some()
        || std::env::var("TERM").is_ok_and(|term| term == "dumb");
    let paint = if plain { Paint::Plain } else { Paint::Colours };
    printer.show(&Timeline::from(answer.into_inner()), |timeline| draw(timeline, columns(), paint))?;
    Ok(Exit::Done)
}

/// At most `width` characters a line.
fn draw(timeline: &Timeline, width: usize, paint: Paint) -> String {
    let mut text = format!("{}\n\n", result_line(&timeline.rollout));
    let all = || timeline.servers.iter().flat_map(|server| &server.bars).chain(&timeline.waves);
    let from = all().map(|bar| bar.from_ms).min().unwrap_or(timeline.rollout.started_ms);
    let ends = all().map(|bar| bar.to_ms.unwrap_or(timeline.now_ms)).max();
    let to = ends.unwrap_or(timeline.now_ms).max(from + 1);

    let label = |server: &str, attempt: u32| {
        let name: String = escape_line(server).chars().take(NAME).collect();
        if attempt > 1 { format!("{name} #{attempt}") } else { name }
    };
    let labels = timeline.servers.iter().map(|server| label(&server.server, server.attempt));
    let left = labels.map(|label| label.chars().count()).max().unwrap_or(0).max("rollout".len());
    let columns = width.saturating_sub(left + STATE + 4).max(LEAST);
    let scale = Scale { from, to, columns, now: timeline.now_ms };
    let letters = letters(timeline);

    let mut line = |label: &str, bars: &[Bar], state: &str, look: &dyn Fn(&Bar) -> (char, Tone)| {
        let drawn = scale.line(bars, look);
        let state: String = escape_line(state).chars().take(STATE).collect();
        let line = format!("{label:left$}  {}  {state}", painted(&drawn, paint));
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line("rollout", &timeline.waves, &timeline.rollout.state, &of_rollout);
    for server in &timeline.servers {
        line(&label(&server.server, server.attempt), &server.bars, &server.state, &|bar| {
            of_server(bar, &letters)
        });
    }
    let took = span(Duration::from_millis(to - from));
    let column = match (to - from).div_ceil(columns as u64) {
        column @ 0..1000 => format!("{column} ms"),
        column => span(Duration::from_millis(column)),
    };
    text.push_str(&format!(
        "\n{} to {} ({took})\na column is {column}\n",
        precise(UnixMs(from)),
        precise(UnixMs(to))
    ));
    text.push_str(&legend(&letters, width));
    text
}

/// From instants to columns.
struct Scale {
    from: u64,
    to: u64,
    columns: usize,
    now: u64,
}

impl Scale {
    fn column(&self, at: u64) -> usize {
        let part = u128::from(at.saturating_sub(self.from)) * self.columns as u128;
        let column = part / u128::from(self.to - self.from);
        usize::try_from(column).unwrap_or(self.columns).min(self.columns)
    }

    /// What went wrong is never covered by what came after, however short it was.
    fn line(&self, bars: &[Bar], look: &dyn Fn(&Bar) -> (char, Tone)) -> Vec<(char, Tone)> {
        let mut cells = vec![(' ', Tone::Empty); self.columns];
        for bar in bars {
            let (fill, tone) = look(bar);
            let first = self.column(bar.from_ms).min(self.columns - 1);
            let end = self.column(bar.to_ms.unwrap_or(self.now)).max(first + 1).min(self.columns);
            for cell in cells.iter_mut().take(end).skip(first).filter(|(_, there)| *there < Tone::Doubtful) {
                *cell = (fill, if tone >= Tone::Doubtful { Tone::Runs } else { tone });
            }
            let mark = match tone {
                Tone::Bad => Some('x'),
                Tone::Doubtful => Some('?'),
                Tone::Empty | Tone::Waits | Tone::Runs | Tone::Good => None,
            };
            if let (Some(mark), Some(cell)) = (mark, cells.get_mut(end - 1)) {
                *cell = (mark, tone);
            }
        }
        cells
    }
}

fn of_rollout(bar: &Bar) -> (char, Tone) {
    let wave = bar.what.strip_prefix("wave ").unwrap_or_default();
    match (bar.what.as_str(), wave.split_once(": ")) {
        (_, Some((_, "bake"))) => ('=', Tone::Waits),
        (_, Some((_, "health"))) => ('h', Tone::Runs),
        (_, Some((_, "confirm"))) => ('~', Tone::Runs),
        ("queued", _) => ('.', Tone::Waits),
        ("paused", _) => ('p', Tone::Waits),
        ("stopping" | "aborting", _) => ('!', Tone::Bad),
        _ => (wave.chars().last().unwrap_or('w'), Tone::Runs),
    }
}

fn of_server(bar: &Bar, letters: &Letters) -> (char, Tone) {
    match bar.what.as_str() {
        "staging" => ('-', Tone::Waits),
        "awaiting" => ('.', Tone::Waits),
        "undecided" => ('?', Tone::Doubtful),
        "confirming" => ('~', Tone::Waits),
        _ => {
            let tone = match bar.state.as_str() {
                "succeeded" => Tone::Good,
                "running" => Tone::Runs,
                "unknown" => Tone::Doubtful,
                _ => Tone::Bad,
            };
            (letters.get(&key(bar)).map_or('#', |(letter, _)| *letter), tone)
        }
    }
}

/// A step's phase and place to its letter and name.
type Letters = BTreeMap<(bool, u32), (char, String)>;

fn key(bar: &Bar) -> (bool, u32) {
    (bar.phase == "return", bar.index)
}

/// Small letters on the way there, capitals on the way back.
fn letters(timeline: &Timeline) -> Letters {
    let steps = timeline.servers.iter().flat_map(|server| &server.bars).filter(|bar| bar.what == "step");
    let mut names: BTreeMap<(bool, u32), String> = BTreeMap::new();
    for bar in steps {
        names.entry(key(bar)).or_insert_with(|| escape_line(&bar.step));
    }
    let mut alphabets =
        [('a'..='z').collect::<Vec<_>>().into_iter(), ('A'..='Z').collect::<Vec<_>>().into_iter()];
    names
        .into_iter()
        .map(|(key, name)| {
            let [there, back] = &mut alphabets;
            let letter = if key.0 { back.next() } else { there.next() };
            (key, (letter.unwrap_or('#'), name))
        })
        .collect()
}

fn legend(letters: &Letters, width: usize) -> String {
    let steps = letters.iter().map(|((back, _), (letter, name))| {
        if *back { format!("{letter} {name} (way back)") } else { format!("{letter} {name}") }
    });
    let marks = [
        "- fetching",
        ". waits for its turn",
        "~ to be confirmed",
        "x went wrong",
        "? nobody knows",
        "= bake",
        "h health",
        "p paused",
    ];
    let mut text = String::new();
    let mut length = 0;
    for entry in steps.chain(marks.map(str::to_owned)) {
        let more = entry.chars().count();
        if length > 0 && length + 3 + more > width {
            text.push('\n');
            length = 0;
        }
        if length > 0 {
            text.push_str("   ");
            length += 3;
        }
        text.push_str(&entry);
        length += more;
    }
    text.push('\n');
    text
}

fn painted(cells: &[(char, Tone)], paint: Paint) -> String {
    let mut text = String::new();
    let mut last = Tone::Empty;
    for (character, tone) in cells {
        if paint == Paint::Colours && *tone != last {
            text.push_str(match tone {
                Tone::Empty => "\x1b[0m",
                Tone::Waits => "\x1b[0;2m",
                Tone::Runs => "\x1b[0;36m",
                Tone::Good => "\x1b[0;32m",
                Tone::Doubtful => "\x1b[0;1;33m",
                Tone::Bad => "\x1b[0;1;31m",
            });
            last = *tone;
        }
        text.push(*character);
    }
    if last != Tone::Empty {
        text.push_str("\x1b[0m");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Rollout, TimelineServer};

    const T0: u64 = 1_700_000_000_000;

    fn bar(what: &str, from: u64, to: u64) -> Bar {
        let to_ms = (to > 0).then_some(T0 + to * 1000);
        Bar { what: what.into(), from_ms: T0 + from * 1000, to_ms, ..Bar::default() }
    }

    fn step(name: &str, index: u32, state: &str, from: u64, to: u64) -> Bar {
        Bar { step: name.into(), index, state: state.into(), phase: "deploy".into(), ..bar("step", from, to) }
    }

    fn recorded() -> Timeline {
        let server = |server: &str, wave, attempt, state: &str, bars| TimelineServer {
            server: server.into(),
            wave,
            attempt,
            state: state.into(),
            bars,
        };
        let back = Bar { phase: "return".into(), ..step("activate", 0, "succeeded", 42, 44) };
        Timeline {
            rollout: Rollout {
                id: "0a1b2c3d".repeat(4),
                kind: "deploy".into(),
                app: "shop".into(),
                version: "1.4.0".into(),
                environment: "production".into(),
                state: "running".into(),
                because: "wave 2 of 2: web-2, web-3 run".into(),
                started_ms: T0,
                ..Rollout::default()
            },
            now_ms: T0 + 100_000,
            waves: vec![
                bar("queued", 0, 5),
                bar("wave 1", 5, 50),
                bar("wave 1: bake", 50, 70),
                bar("paused", 70, 75),
                bar("wave 2", 75, 0),
            ],
            servers: vec![
                server(
                    "web-1",
                    1,
                    1,
                    "replaced",
                    vec![
                        bar("staging", 5, 12),
                        step("migrate", 0, "failed", 12, 13),
                        step("activate", 1, "succeeded", 13, 20),
                        step("healthy", 2, "failed", 20, 42),
                        back,
                    ],
                ),
                server("web-1", 1, 2, "succeeded", vec![step("migrate", 0, "succeeded", 45, 50)]),
                server("web-2", 2, 1, "awaiting", vec![bar("staging", 75, 80), bar("awaiting", 80, 0)]),
                server(
                    "web-3",
                    2,
                    1,
                    "unknown",
                    vec![step("migrate", 0, "unknown", 75, 90), bar("undecided", 90, 0)],
                ),
                server("web-4", 2, 1, "pending", vec![]),
            ],
        }
    }

    #[test]
    fn eighty_columns_are_enough() {
        let text = draw(&recorded(), 80, Paint::Plain);
        let too_long = text.lines().skip(1).find(|line| line.chars().count() > 80);
        assert_eq!(too_long, None);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn colours_change_no_character() {
        let plain = draw(&recorded(), 80, Paint::Plain);
        let mut coloured = draw(&recorded(), 80, Paint::Colours);
        assert!(coloured.contains("\x1b[0;1;31mx"), "what went wrong is red");
        while let Some(start) = coloured.find('\x1b') {
            let end = coloured[start..].find('m').unwrap() + start;
            coloured.replace_range(start..=end, "");
        }
        assert_eq!(coloured, plain);
    }

    #[test]
    fn nothing_yet_and_very_narrow_are_no_trouble() {
        let mut timeline = recorded();
        draw(&timeline, 1, Paint::Plain);
        timeline.servers.clear();
        timeline.waves.clear();
        draw(&timeline, 80, Paint::Plain);
    }
}
