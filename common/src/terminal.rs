//! Bytes from a step or a server, made safe to show: nothing that a terminal would obey, and nothing that makes text
//! look like other text, ever comes out of here. Everything that people see of foreign bytes passes through this module.

use std::fmt::Write;

/// Characters of a line before it is shown in parts: a step may print 100 MiB without a newline.
const LINE_CHARACTERS: usize = 16 << 10;

/// The bytes as text in which only `\n` and `\t` are left of the control characters. Invalid UTF-8 becomes `\xNN`,
/// other control and direction characters become `\u{N}`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        escape_str(&mut text, chunk.valid());
        escape_invalid(&mut text, chunk.invalid());
    }
    text
}

/// The same in one line: for names, reasons and error messages, where a newline would forge a line of ours.
pub fn escape_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\t' => line.push(' '),
            other => escape_char(&mut line, other),
        }
    }
    line
}

/// Cuts a stream of output into safe lines. One per stream, so that a character or line that is split over records
/// comes out whole.
#[derive(Debug, Default)]
pub struct Lines {
    line: String,
    characters: usize,
    /// The beginning of a character whose end has not come.
    partial: Vec<u8>,
    /// A carriage return that belongs to the line's end if a newline follows.
    carriage_return: bool,
}

impl Lines {
    /// Takes the next bytes of the stream and gives each line that is now whole, without its newline.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        let joined;
        let mut bytes = bytes;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            bytes = &joined;
        }
        loop {
            match str::from_utf8(bytes) {
                Ok(text) => return self.text(text, &mut each),
                Err(error) => {
                    let (valid, rest) = bytes.split_at(error.valid_up_to());
                    // Valid by the split; lossy only in the type.
                    self.text(&String::from_utf8_lossy(valid), &mut each);
                    let Some(length) = error.error_len() else {
                        self.partial = rest.to_vec();
                        return;
                    };
                    let (invalid, after) = rest.split_at(length);
                    self.invalid(invalid, &mut each);
                    bytes = after;
                }
            }
        }
    }

    /// The stream ended: gives what came after the last newline, if anything.
    pub fn finish(&mut self, mut each: impl FnMut(&str)) {
        let partial = std::mem::take(&mut self.partial);
        self.invalid(&partial, &mut each);
        self.settle_carriage_return();
        if !self.line.is_empty() {
            self.end(&mut each);
        }
    }

    fn text(&mut self, text: &str, each: &mut impl FnMut(&str)) {
        for character in text.chars() {
            if character == '\n' {
                self.carriage_return = false;
                self.end(each);
                continue;
            }
            self.settle_carriage_return();
            if character == '\r' {
                self.carriage_return = true;
                continue;
            }
            escape_char(&mut self.line, character);
            self.count(each);
        }
    }

    fn invalid(&mut self, bytes: &[u8], each: &mut impl FnMut(&str)) {
        if !bytes.is_empty() {
            self.settle_carriage_return();
            escape_invalid(&mut self.line, bytes);
            self.count(each);
        }
    }

    fn settle_carriage_return(&mut self) {
        if std::mem::take(&mut self.carriage_return) {
            escape_char(&mut self.line, '\r');
        }
    }

    fn count(&mut self, each: &mut impl FnMut(&str)) {
        self.characters += 1;
        if self.characters >= LINE_CHARACTERS {
            self.end(each);
        }
    }

    fn end(&mut self, each: &mut impl FnMut(&str)) {
        each(&self.line);
        self.line.clear();
        self.characters = 0;
    }
}

fn escape_str(text: &mut String, from: &str) {
    for character in from.chars() {
        match character {
            '\n' => text.push('\n'),
            other => escape_char(text, other),
        }
    }
}

fn escape_char(text: &mut String, character: char) {
    match character {
        '\t' => text.push('\t'),
        '\u{0}'..='\u{1f}' | '\u{7f}' => push(text, format_args!("\\x{:02x}", u32::from(character))),
        other if is_forbidden(other) => push(text, format_args!("\\u{{{:x}}}", u32::from(other))),
        other => text.push(other),
    }
}

fn escape_invalid(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        push(text, format_args!("\\x{byte:02x}"));
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
}

/// C1 controls (a terminal in 8-bit mode obeys them), direction controls, line and paragraph separators.
fn is_forbidden(character: char) -> bool {
    matches!(
        character,
        '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| got.push(line.to_owned()));
        }
        lines.finish(|line| got.push(line.to_owned()));
        got
    }

    #[test]
    fn escape_sequences_become_text() {
        assert_eq!(escape(b"\x1b[31mred\x07\r\n\tok"), "\\x1b[31mred\\x07\\x0d\n\tok");
        assert_eq!(escape(b"8-bit \x9b31m, \xc2\x9b31m, \x7f"), "8-bit \\x9b31m, \\u{9b}31m, \\x7f");
        assert_eq!(escape("nimda\u{202e}admin".as_bytes()), "nimda\\u{202e}admin");
        assert_eq!(escape("grün ✓ 日本".as_bytes()), "grün ✓ 日本");
        assert_eq!(escape_line("a\nb\tc\u{1b}"), "a\\nb c\\x1b");
    }

    #[test]
    fn a_character_split_over_records_survives() {
        assert_eq!(lines(&[b"gr\xc3", b"\xbcn\n"]), ["grün"]);
        assert_eq!(lines(&[b"\xe2", b"\x9c", b"\x93"]), ["✓"]);
        assert_eq!(lines(&[b"\xe2\x9c", b"\nx"]), ["\\xe2\\x9c", "x"]);
        assert_eq!(lines(&[b"end \xe2\x9c"]), ["end \\xe2\\x9c"]);
    }

    #[test]
    fn a_terminals_line_end_is_a_line_end() {
        assert_eq!(lines(&[b"a\r\nb\r", b"\nc\rd\n\n"]), ["a", "b", "c\\x0dd", ""]);
    }

    #[test]
    fn a_line_without_end_comes_in_parts() {
        let got = lines(&[&[b'x'; LINE_CHARACTERS * 2 + 5]]);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE_CHARACTERS, LINE_CHARACTERS, 5]);
    }

    fn is_safe(text: &str) -> bool {
        text.chars().all(|character| {
            (!character.is_control() || character == '\t' || character == '\n') && !is_forbidden(character)
        })
    }

    proptest! {
        #[test]
        fn no_forbidden_byte_ever_comes_out(pieces in vec(vec(any::<u8>(), 0..40), 0..10), text in any::<String>()) {
            for piece in &pieces {
                prop_assert!(is_safe(&escape(piece)));
            }
            prop_assert!(is_safe(&escape(text.as_bytes())));
            prop_assert!(is_safe(&escape_line(&text)) && !escape_line(&text).contains(['\n', '\t']));
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            for line in lines(&pieces) {
                prop_assert!(is_safe(&line) && !line.contains('\n'), "{line:?}");
            }
        }

        #[test]
        fn lines_do_not_depend_on_how_the_bytes_were_cut(text in "[a-zäé✓\u{202e}\u{1b}\r\n]{0,60}", cut in 1_usize..5) {
            let pieces: Vec<_> = text.as_bytes().chunks(cut).collect();
            prop_assert_eq!(lines(&pieces), lines(&[text.as_bytes()]));
        }
    }
}
