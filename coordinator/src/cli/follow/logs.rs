//! Output as it arrives: parts of logs in, whole lines out. A part that comes twice (after a reconnect) shows once, one
//! that is missing is said to be missing. Every byte is escaped here, before anything can print it.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{
    deployment::log::{Decoder, Record, Stream},
    terminal::{Lines, escape_line},
    time::UnixMs,
};
use consign_proto::v1;

/// A line without end is shown after this long without more of it.
const IDLE: Duration = Duration::from_millis(400);

/// Whole framed records of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) server: String,
    pub(crate) deployment: String,
    pub(crate) attempt: String,
    pub(crate) step: String,
    pub(crate) offset: u64,
    pub(crate) records: Vec<u8>,
}

impl From<v1::LogPart> for Part {
    fn from(wire: v1::LogPart) -> Self {
        Self {
            server: escape_line(&wire.server),
            deployment: wire.deployment,
            attempt: escape_line(&wire.attempt),
            step: escape_line(&wire.step),
            offset: wire.offset,
            records: wire.records.to_vec(),
        }
    }
}

/// One line to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) at: UnixMs,
    pub(crate) server: String,
    pub(crate) step: String,
    pub(crate) stream: Stream,
    /// Escaped, without newline.
    pub(crate) text: String,
}

/// The logs of all attempts that are followed.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    attempts: BTreeMap<(String, String), Attempt>,
    /// Where the first part of an attempt begins that is not followed from its beginning.
    since: u64,
}

#[derive(Debug)]
struct Attempt {
    server: String,
    step: String,
    next: u64,
    stdout: Tail,
    stderr: Tail,
    system: Tail,
}

/// A stream's line that has begun.
#[derive(Debug, Default)]
struct Tail {
    lines: Lines,
    at: UnixMs,
    open: bool,
    /// Since when nothing has come for the open line, by our own clock: the record's time is another machine's, and
    /// long past where the reader is late.
    waits: Option<UnixMs>,
}

impl Outputs {
    pub(crate) fn since(offset: u64) -> Self {
        Self { since: offset, ..Self::default() }
    }

    /// Takes a part; `record` sees each new record with its offset, `line` each line that is now whole.
    pub(crate) fn push(
        &mut self,
        part: &Part,
        mut record: impl FnMut(&Part, u64, &Record),
        mut line: impl FnMut(Output),
    ) {
        let since = self.since;
        let attempt =
            self.attempts.entry((part.deployment.clone(), part.attempt.clone())).or_insert_with(|| Attempt {
                server: part.server.clone(),
                step: part.step.clone(),
                next: since,
                stdout: Tail::default(),
                stderr: Tail::default(),
                system: Tail::default(),
            });
        let known = attempt.next.saturating_sub(part.offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let Some(new) = part.records.get(known..).filter(|new| !new.is_empty()) else { return };
        if part.offset > attempt.next {
            let missing = part.offset - attempt.next;
            line(attempt.note(
                UnixMs(0),
                format!("({missing} bytes of the log did not arrive; `consign rollout logs` has them)"),
            ));
            attempt.next = part.offset;
        }
        let mut decoder = Decoder::at(attempt.next);
        decoder.push(new);
        loop {
            let offset = decoder.offset();
            match decoder.next_record() {
                Ok(Some(found)) => {
                    record(part, offset, &found);
                    attempt.record(&found, &mut line);
                }
                Ok(None) => break,
                Err(corrupt) => {
                    // Nothing behind it can be read; the next part begins at a record again.
                    line(attempt.note(UnixMs(0), format!("({corrupt})")));
                    break;
                }
            }
        }
        attempt.next = attempt.next.saturating_add(u64::try_from(new.len()).unwrap_or(u64::MAX));
    }

    /// Shows lines that began a while ago and have not ended.
    pub(crate) fn flush_idle(&mut self, now: UnixMs, mut line: impl FnMut(Output)) {
        self.flush_where(|_, _, tail| now.since(*tail.waits.get_or_insert(now)) >= IDLE, &mut line);
    }

    /// For a while nobody looked: of that time no line was idle.
    pub(crate) fn look_anew(&mut self) {
        for attempt in self.attempts.values_mut() {
            for tail in [&mut attempt.stdout, &mut attempt.stderr, &mut attempt.system] {
                tail.waits = None;
            }
        }
    }

    /// Shows every line that has begun: nothing more will come.
    pub(crate) fn finish(&mut self, mut line: impl FnMut(Output)) {
        self.flush_where(|_, _, _| true, &mut line);
    }

    /// The same for one attempt of one server.
    pub(crate) fn finish_attempt(&mut self, server: &str, attempt: &str, mut line: impl FnMut(Output)) {
        self.flush_where(|of, name, _| of == server && name == attempt, &mut line);
    }

    fn flush_where(&mut self, due: impl Fn(&str, &str, &mut Tail) -> bool, line: &mut impl FnMut(Output)) {
        for ((_, name), attempt) in &mut self.attempts {
            let (server, step) = (&attempt.server, &attempt.step);
            for (stream, tail) in [
                (Stream::Stdout, &mut attempt.stdout),
                (Stream::Stderr, &mut attempt.stderr),
                (Stream::System, &mut attempt.system),
            ] {
                if tail.open && due(server, name, tail) {
                    tail.open = false;
                    let at = tail.at;
                    tail.lines.finish(|text| {
                        line(Output {
                            at,
                            server: server.clone(),
                            step: step.clone(),
                            stream,
                            text: text.into(),
                        });
                    });
                }
            }
        }
    }
}

impl Attempt {
    fn record(&mut self, record: &Record, line: &mut impl FnMut(Output)) {
        if let Some(missing) = record.missing() {
            let text = format!(
                "({missing} bytes are missing here: beyond the server's log_limit, or its disk was full)"
            );
            return line(self.note(record.at, text));
        }
        let tail = match record.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
            Stream::System | Stream::Gap => &mut self.system,
        };
        tail.at = record.at;
        tail.waits = None;
        tail.open = record.data.last() != Some(&b'\n');
        let (server, step) = (&self.server, &self.step);
        tail.lines.push(&record.data, |text| {
            line(Output {
                at: record.at,
                server: server.clone(),
                step: step.clone(),
                stream: record.stream,
                text: text.into(),
            });
        });
    }

    fn note(&self, at: UnixMs, text: String) -> Output {
        Output { at, server: self.server.clone(), step: self.step.clone(), stream: Stream::Gap, text }
    }
}

#[cfg(test)]
mod tests {
    use consign_common::deployment::log::{encode_gap_into, encode_into};

    use super::*;

    fn part(offset: u64, records: &[u8]) -> Part {
        Part {
            server: "web-1".into(),
            deployment: "d".into(),
            attempt: "deploy-0-1".into(),
            step: "migrate".into(),
            offset,
            records: records.to_vec(),
        }
    }

    fn record(stream: Stream, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_into(&mut bytes, UnixMs(1000), stream, data);
        bytes
    }

    fn push(outputs: &mut Outputs, part: &Part) -> Vec<String> {
        let mut lines = Vec::new();
        outputs.push(part, |_, _, _| {}, |output| lines.push(output.text));
        lines
    }

    #[test]
    fn what_comes_twice_shows_once_however_it_is_cut() {
        let (first, second) = (record(Stream::Stdout, b"one\n"), record(Stream::Stdout, b"two\n"));
        let both = [first.clone(), second.clone()].concat();
        let mut outputs = Outputs::default();
        assert_eq!(push(&mut outputs, &part(0, &first)), ["one"]);
        assert_eq!(push(&mut outputs, &part(0, &first)), [""; 0]);
        assert_eq!(push(&mut outputs, &part(0, &both)), ["two"]);
        assert_eq!(push(&mut outputs, &part(u64::try_from(first.len()).unwrap(), &second)), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut outputs = Outputs::default();
        let lines = push(&mut outputs, &part(100, &record(Stream::Stdout, b"late\n")));
        assert_eq!(lines, ["(100 bytes of the log did not arrive; `consign rollout logs` has them)", "late"]);
        let mut gap = Vec::new();
        encode_gap_into(&mut gap, UnixMs(1), 7);
        let lines = push(&mut Outputs::default(), &part(0, &gap));
        assert_eq!(
            lines,
            ["(7 bytes are missing here: beyond the server's log_limit, or its disk was full)"]
        );
    }

    #[test]
    fn a_log_read_from_an_offset_misses_nothing() {
        let mut outputs = Outputs::since(100);
        assert_eq!(push(&mut outputs, &part(100, &record(Stream::Stderr, b"late\n"))), ["late"]);
    }

    #[test]
    fn streams_keep_their_lines_apart() {
        let bytes = [
            record(Stream::Stdout, b"a"),
            record(Stream::Stderr, b"error\n"),
            record(Stream::Stdout, b"b\n"),
        ]
        .concat();
        assert_eq!(push(&mut Outputs::default(), &part(0, &bytes)), ["error", "ab"]);
    }

    #[test]
    fn a_prompt_shows_when_nothing_follows() {
        let mut outputs = Outputs::default();
        assert_eq!(push(&mut outputs, &part(0, &record(Stream::Stdout, b"password: "))), [""; 0]);
        let mut lines = Vec::new();
        // The record is from long ago, by another clock; the wait begins when we first look.
        outputs.flush_idle(UnixMs(900_000), |output| lines.push(output.text));
        outputs.flush_idle(UnixMs(900_200), |output| lines.push(output.text));
        assert_eq!(lines, [""; 0]);
        outputs.flush_idle(UnixMs(900_500), |output| lines.push(output.text));
        outputs.flush_idle(UnixMs(901_000), |output| lines.push(output.text));
        outputs.finish(|output| lines.push(output.text));
        assert_eq!(lines, ["password: "]);
    }

    #[test]
    fn a_line_is_not_idle_while_nobody_looks() {
        let mut outputs = Outputs::default();
        assert_eq!(push(&mut outputs, &part(0, &record(Stream::Stdout, b"half a "))), [""; 0]);
        let mut lines = Vec::new();
        outputs.flush_idle(UnixMs(1_000), |output| lines.push(output.text));
        outputs.look_anew();
        outputs.flush_idle(UnixMs(9_000), |output| lines.push(output.text));
        outputs.flush_idle(UnixMs(9_300), |output| lines.push(output.text));
        assert_eq!(lines, [""; 0]);
        outputs.flush_idle(UnixMs(9_400), |output| lines.push(output.text));
        assert_eq!(lines, ["half a "]);
    }

    #[test]
    fn terminals_are_safe_from_steps() {
        let lines = push(&mut Outputs::default(), &part(0, &record(Stream::Stdout, b"\x1b]0;owned\x07\n")));
        assert_eq!(lines, ["\\x1b]0;owned\\x07"]);
    }

    #[test]
    fn a_corrupt_part_ends_itself_only() {
        let mut bad = record(Stream::Stdout, b"one\n");
        let at = bad.len() - 1;
        bad[at] ^= 1;
        let mut outputs = Outputs::default();
        assert!(push(&mut outputs, &part(0, &bad))[0].contains("checksum"));
        let next = part(u64::try_from(bad.len()).unwrap(), &record(Stream::Stdout, b"two\n"));
        assert_eq!(push(&mut outputs, &next), ["two"]);
    }
}
