//! What stands between a condition's text and the CEL parser: it is a port of a large grammar, and recurses. Here the
//! text's length, alphabet, nesting and number of operators are bounded before the parser sees it.

use super::InvalidCondition;
use crate::limits::CONDITION_BYTES;

/// Nesting of parentheses and brackets.
pub(crate) const DEPTH: u16 = 16;
/// Characters of operators in all: a chain (`1+1+1...`) costs the parser up to 9 KiB of stack for each, unoptimized.
const OPERATORS: usize = 96;
const DOTS: usize = 256;

pub(crate) fn check(text: &str) -> Result<(), InvalidCondition> {
    if text.len() > CONDITION_BYTES {
        return refuse(0, format!("longer than {CONDITION_BYTES} bytes"));
    }
    if text.trim().is_empty() {
        return refuse(0, "empty; leave it out where a step always runs");
    }
    let mut depth = 0;
    let (mut operators, mut dots) = (0, 0);
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' | '"' => skip_string(character, at, &mut characters)?,
            '(' | '[' => depth += 1,
            ')' | ']' => depth = u16::saturating_sub(depth, 1),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | ',' | ' ' | '\t' | '\n' | '\r' => {}
            '!' | '=' | '<' | '>' | '&' | '|' | '?' | ':' | '+' | '-' | '*' | '/' | '%' => operators += 1,
            '.' => dots += 1,
            other => return refuse(at, format!("unexpected character {other:?}")),
        }
        if depth > DEPTH {
            return refuse(at, format!("nested deeper than {DEPTH}"));
        }
        if operators > OPERATORS || dots > DOTS {
            return refuse(at, format!("more than {OPERATORS} characters of operators, or {DOTS} dots"));
        }
    }
    Ok(())
}

/// What the parser says of a text, in one short line: it quotes line ends as they are, and the text to its end.
pub(crate) fn one_line(message: &str) -> String {
    const CHARACTERS: usize = 300;
    let mut line = String::new();
    for c in message.chars().take(CHARACTERS) {
        match c.is_control() {
            true => line.extend(c.escape_debug()),
            false => line.push(c),
        }
    }
    if message.chars().nth(CHARACTERS).is_some() {
        line.push_str("...");
    }
    line
}

/// A string on one line, with the plain escapes: nothing of CEL's raw, triple-quoted, byte and numeric forms.
fn skip_string(
    quote: char,
    start: usize,
    characters: &mut impl Iterator<Item = (usize, char)>,
) -> Result<(), InvalidCondition> {
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, '\\' | '\'' | '"' | 'n' | 't')) => {}
                Some(_) | None => return refuse(at, "an escape is one of \\\\ \\' \\\" \\n \\t"),
            },
            end if end == quote => return Ok(()),
            control if control.is_control() => return refuse(at, "a control character in a string"),
            _ => {}
        }
    }
    refuse(start, "a string without an end")
}

fn refuse<T>(at: usize, message: impl Into<String>) -> Result<T, InvalidCondition> {
    Err(InvalidCondition { span: at..at, message: message.into(), help: None })
}
