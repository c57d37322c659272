//! Changes to an input. Most of them know where a value, a member, a line or a length begins and ends: bytes that are
//! changed anywhere are refused by the first thing that reads them, and test nothing behind it.

use std::ops::Range;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::random::Random;

/// Beyond this many bytes nobody looks for values.
const SCANNED: usize = 32 << 10;

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "-0",
    "1.0",
    "1e3",
    "00",
    "2",
    "16",
    "17",
    "31",
    "32",
    "33",
    "63",
    "64",
    "65",
    "127",
    "128",
    "200",
    "201",
    "255",
    "256",
    "4095",
    "4096",
    "4097",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
];

const LENGTHS: &[u32] = &[0, 1, 11, 31, 32, 33, 63, 64, 65, 0x7fff_ffff, 0x8000_0000, u32::MAX];

const SPACES: &[&[u8]] = &[b" ", b"\n", b"\t", b"\r\n", b"\0", b"\xef\xbb\xbf"];

const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-1",
    "\"\"",
    "\"a\"",
    "[]",
    "{}",
    "[{}]",
    "{\"\":0}",
    "1.5",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\u202e\"",
    "{\"commitment\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}",
    "{\"$serde_json::private::Number\":\"1\"}",
    "{\"$serde_json::private::RawValue\":\"{}\"}",
];

/// What was found in an input that may be JSON.
#[derive(Default)]
struct Found {
    /// Strings, literals, lists and objects.
    values: Vec<Range<usize>>,
    /// Between commas and brackets: elements of lists, members of objects.
    items: Vec<Range<usize>>,
}

/// One to eight changes; `other` is what parts are taken from.
pub fn mutate(random: &mut Random, input: &[u8], other: &[u8], words: &[&str], most: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let rounds = 1 << random.below(4);
    for _ in 0..1 + random.below(rounds) {
        change(random, &mut bytes, other, words);
    }
    bytes.truncate(most);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    match random.below(22) {
        0 => flip(random, bytes),
        1 => put_byte(random, bytes),
        2 => drop(bytes.drain(random.range(bytes.len()))),
        3 => {
            let copied = bytes[random.range(bytes.len())].to_vec();
            insert(random, bytes, &copied);
        }
        4 => {
            let word = random.pick(words).as_bytes();
            insert(random, bytes, word);
        }
        5 => replace_word(random, bytes, words),
        6 | 7 => replace_number(random, bytes),
        8 => {
            let copied = other[random.range(other.len())].to_vec();
            insert(random, bytes, &copied);
        }
        9 => {
            let at = random.below(bytes.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        10 => replace_value(random, bytes, VALUES),
        11 => replace_value(random, bytes, words),
        12 => exchange(random, bytes, other),
        13 => double_item(random, bytes),
        14 => remove_item(random, bytes),
        15 => nest(random, bytes),
        16 => lines(random, bytes),
        17 => inside_base64(random, bytes, words),
        18 => change_length(random, bytes),
        19 => repeat(random, bytes),
        20 => respell(random, bytes),
        _ => {
            let space = random.pick(SPACES);
            insert(random, bytes, space);
        }
    }
}

fn flip(random: &mut Random, bytes: &mut [u8]) {
    if let Some(byte) = at_random(random, bytes) {
        *byte ^= 1 << random.below(8);
    }
}

fn put_byte(random: &mut Random, bytes: &mut [u8]) {
    if let Some(byte) = at_random(random, bytes) {
        *byte = match random.one_in(2) {
            true => *random.pick(b"\0\x01\x7f\x80\xff{}[]\",:\\ \n.-_/'=()@0a"),
            false => random.byte(),
        };
    }
}

fn at_random<'a>(random: &mut Random, bytes: &'a mut [u8]) -> Option<&'a mut u8> {
    let at = random.below(bytes.len());
    bytes.get_mut(at)
}

fn insert(random: &mut Random, bytes: &mut Vec<u8>, new: &[u8]) {
    let at = random.below(bytes.len() + 1);
    bytes.splice(at..at, new.iter().copied());
}

fn put(bytes: &mut Vec<u8>, range: Range<usize>, new: &[u8]) {
    bytes.splice(range, new.iter().copied());
}

/// A run of such bytes around or after a random place.
fn run_of(random: &mut Random, bytes: &[u8], is_part: impl Fn(&u8) -> bool) -> Option<Range<usize>> {
    let from = random.below(bytes.len());
    let start = from + bytes.get(from..)?.iter().position(&is_part)?;
    let start = start - bytes[..start].iter().rev().take_while(|byte| is_part(byte)).count();
    let end = start + bytes[start..].iter().take_while(|byte| is_part(byte)).count();
    Some(start..end)
}

fn replace_word(random: &mut Random, bytes: &mut Vec<u8>, words: &[&str]) {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    if let Some(range) = run_of(random, bytes, is_part) {
        put(bytes, range, random.pick(words).as_bytes());
    }
}

fn replace_number(random: &mut Random, bytes: &mut Vec<u8>) {
    let Some(range) = run_of(random, bytes, u8::is_ascii_digit) else { return };
    let known = std::str::from_utf8(&bytes[range.clone()]).ok().and_then(|text| text.parse::<u64>().ok());
    let new = match (known, random.below(4)) {
        (Some(known), 0) => known.wrapping_add(1).to_string(),
        (Some(known), 1) => known.wrapping_sub(1).to_string(),
        _ => (*random.pick(NUMBERS)).to_owned(),
    };
    put(bytes, range, new.as_bytes());
}

/// Leniently: what is no JSON gives what it gives.
fn scan(bytes: &[u8]) -> Found {
    let mut found = Found::default();
    if bytes.len() > SCANNED {
        return found;
    }
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => {
                while let Some(byte) = bytes.get(at) {
                    at += if *byte == b'\\' { 2 } else { 1 };
                    if *byte == b'"' {
                        break;
                    }
                }
                at = at.min(bytes.len());
                found.values.push(start..at);
            }
            b'{' | b'[' => open.push((start, at)),
            b',' => {
                if let Some((_, item)) = open.last_mut() {
                    found.items.push(*item..start);
                    *item = at;
                }
            }
            b'}' | b']' => {
                if let Some((first, item)) = open.pop() {
                    found.items.push(item..start);
                    found.values.push(first..at);
                }
            }
            b':' | b' ' | b'\n' | b'\t' | b'\r' => {}
            _ => {
                let is_literal = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                at += bytes[at..].iter().take_while(is_literal).count();
                found.values.push(start..at);
            }
        }
    }
    found
}

fn some(random: &mut Random, ranges: &[Range<usize>]) -> Option<Range<usize>> {
    ranges.get(random.below(ranges.len())).cloned()
}

fn replace_value(random: &mut Random, bytes: &mut Vec<u8>, by: &[&str]) {
    let Some(range) = some(random, &scan(bytes).values) else { return };
    let new = random.pick(by);
    let is_text = bytes.get(range.start) == Some(&b'"') && !new.starts_with(['"', '{', '[']);
    match is_text && random.one_in(2) {
        true => put(bytes, range, format!("\"{new}\"").as_bytes()),
        false => put(bytes, range, new.as_bytes()),
    }
}

/// A value by another one, of the same input or the other.
fn exchange(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let from = if random.one_in(2) { bytes.clone() } else { other.to_vec() };
    let (Some(to), Some(taken)) = (some(random, &scan(bytes).values), some(random, &scan(&from).values))
    else {
        return;
    };
    put(bytes, to, &from[taken]);
}

/// A member twice: the same, or under the same key with another value.
fn double_item(random: &mut Random, bytes: &mut Vec<u8>) {
    let Some(range) = some(random, &scan(bytes).items) else { return };
    let mut copy = bytes[range.clone()].to_vec();
    if random.one_in(2) {
        replace_number(random, &mut copy);
    }
    copy.push(b',');
    put(bytes, range.start..range.start, &copy);
}

fn remove_item(random: &mut Random, bytes: &mut Vec<u8>) {
    let Some(mut range) = some(random, &scan(bytes).items) else { return };
    if bytes.get(range.end) == Some(&b',') {
        range.end += 1;
    } else if range.start > 0 && bytes.get(range.start - 1) == Some(&b',') {
        range.start -= 1;
    }
    bytes.drain(range);
}

fn nest(random: &mut Random, bytes: &mut Vec<u8>) {
    let Some(range) = some(random, &scan(bytes).values) else { return };
    let depth = *random.pick(&[1, 2, 8, 15, 16, 17, 64, 127, 128, 129, 2000]);
    let (open, close) = *random.pick(&[("[", "]"), ("{\"a\":", "}"), ("(", ")"), ("!(", ")")]);
    let inner = bytes[range.clone()].to_vec();
    let nested = [open.repeat(depth).as_bytes(), &inner, close.repeat(depth).as_bytes()].concat();
    put(bytes, range, &nested);
}

fn lines(random: &mut Random, bytes: &mut Vec<u8>) {
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        return;
    }
    let (from, to) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(4) {
        0 => lines.swap(from, to),
        1 => drop(lines.remove(from)),
        2 => {
            let line = lines[from].clone();
            lines.insert(to, line);
        }
        // A block, so that a whole step or parameter is there twice.
        _ => {
            let end = (from + 1 + random.below(8)).min(lines.len());
            let block = lines[from..end].to_vec();
            lines.splice(to..to, block);
        }
    }
    *bytes = lines.concat();
}

/// A change to what a text is base64 of: a payload, a signature, a key.
fn inside_base64(random: &mut Random, bytes: &mut Vec<u8>, words: &[&str]) {
    let texts: Vec<Range<usize>> = scan(bytes)
        .values
        .into_iter()
        .filter(|range| range.len() > 10 && bytes[range.start] == b'"')
        .map(|range| range.start + 1..range.end - 1)
        .collect();
    let Some(range) = some(random, &texts) else { return };
    let Ok(mut inner) = STANDARD.decode(&bytes[range.clone()]) else { return };
    match random.below(6) {
        0 => flip(random, &mut inner),
        1 => replace_number(random, &mut inner),
        2 => replace_word(random, &mut inner, words),
        3 => change_length(random, &mut inner),
        4 => exchange(random, &mut inner, &[]),
        _ => drop(inner.drain(random.range(inner.len()))),
    }
    put(bytes, range, STANDARD.encode(inner).as_bytes());
}

/// Four bytes that may be a length in SSH's encoding.
fn change_length(random: &mut Random, bytes: &mut [u8]) {
    let Some(last) = bytes.len().checked_sub(4) else { return };
    let likely: Vec<usize> = (0..=last).filter(|at| bytes[*at..].starts_with(&[0, 0, 0])).collect();
    let at = match likely.is_empty() {
        true => random.below(last + 1),
        false => *random.pick(&likely),
    };
    let known = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let new = match random.below(3) {
        0 => known.wrapping_add(1),
        1 => known.wrapping_sub(1),
        _ => *random.pick(LENGTHS),
    };
    bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
}

fn repeat(random: &mut Random, bytes: &mut Vec<u8>) {
    let items = scan(bytes).items;
    let range = if random.one_in(2) { None } else { some(random, &items) };
    let range = range.unwrap_or_else(|| random.range(bytes.len()));
    let mut part = bytes[range.clone()].to_vec();
    if items.contains(&range) {
        part.push(b',');
    }
    let times = *random.pick(&[2, 3, 16, 17, 32, 33, 64, 65, 200, 1000]);
    let times = times.min((16 << 10) / part.len().max(1));
    put(bytes, range.start..range.start, &part.repeat(times));
}

/// A character of a string, written otherwise: the same value in other bytes.
fn respell(random: &mut Random, bytes: &mut Vec<u8>) {
    let texts: Vec<Range<usize>> = scan(bytes)
        .values
        .into_iter()
        .filter(|range| range.len() > 2 && bytes[range.start] == b'"')
        .collect();
    let Some(range) = some(random, &texts) else { return };
    let at = range.start + 1 + random.below(range.len() - 2);
    let byte = bytes[at];
    if byte.is_ascii_graphic() && byte != b'\\' {
        put(bytes, at..at + 1, format!("\\u{byte:04x}").as_bytes());
    }
}
