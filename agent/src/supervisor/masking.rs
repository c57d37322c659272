//! Secrets never reach the log. Every byte that belongs to an occurrence of one is replaced, also where occurrences
//! overlap; a run of them becomes one mask. Held back is only the longest tail that is a proper prefix of a secret,
//! until the next byte or the end decides.

const MASK: &[u8] = b"******";

#[derive(Debug)]
pub(super) struct Masker {
    secrets: Vec<Vec<u8>>,
    /// The bytes that a secret begins with: all others pass at once.
    first: Box<[bool; 256]>,
    held: Vec<u8>,
    /// How many of the next bytes belong to an occurrence that was found already.
    covered: usize,
}

impl Masker {
    pub(super) fn new(secrets: &[String]) -> Self {
        let secrets: Vec<_> = secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect();
        let mut first = Box::new([false; 256]);
        for byte in secrets.iter().filter_map(|secret| secret.first()) {
            first[usize::from(*byte)] = true;
        }
        Self { secrets, first, held: Vec::new(), covered: 0 }
    }

    /// Appends to `out` all that is decided by now.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.secrets.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        let mut input = std::mem::take(&mut self.held);
        input.extend_from_slice(bytes);
        let taken = self.scan(&input, Tail::Open, out);
        input.drain(..taken);
        self.held = input;
    }

    /// The stream ended: what was held back is decided.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let input = std::mem::take(&mut self.held);
        self.scan(&input, Tail::Ended, out);
    }

    /// How many bytes of `input` are decided.
    fn scan(&mut self, input: &[u8], tail: Tail, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while let Some((byte, _)) = input.get(at..).and_then(<[u8]>::split_first) {
            let rest = input.get(at..).unwrap_or_default();
            if self.first[usize::from(*byte)] {
                let undecided = |secret: &Vec<u8>| secret.len() > rest.len() && secret.starts_with(rest);
                if matches!(tail, Tail::Open) && self.secrets.iter().any(undecided) {
                    return at;
                }
                let found = self.secrets.iter().filter(|secret| rest.starts_with(secret)).map(Vec::len).max();
                if let Some(length) = found {
                    if self.covered == 0 {
                        out.extend_from_slice(MASK);
                    }
                    self.covered = self.covered.max(length);
                }
            }
            if self.covered > 0 {
                self.covered -= 1;
            } else {
                out.push(*byte);
            }
            at += 1;
        }
        at
    }
}

/// A whole text with every secret masked.
pub(super) fn masked(secrets: &[String], text: &[u8]) -> Vec<u8> {
    let (mut masker, mut out) = (Masker::new(secrets), Vec::new());
    masker.push(text, &mut out);
    masker.finish(&mut out);
    out
}

enum Tail {
    /// More may come.
    Open,
    Ended,
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn mask(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let secrets: Vec<_> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let (mut masker, mut out) = (Masker::new(&secrets), Vec::new());
        for piece in pieces {
            masker.push(piece, &mut out);
        }
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_secret_split_anywhere_is_masked() {
        assert_eq!(mask(&["hunter22"], &[b"pw=hun", b"ter2", b"2\n"]), "pw=******\n");
        assert_eq!(mask(&["hunter22"], &[b"pw=hunter2"]), "pw=hunter2");
        assert_eq!(mask(&["abcdef", "cdefgh"], &[b"xabcdefghx"]), "x******x");
        assert_eq!(mask(&["abcdef", "abcdefghi"], &[b"abcdefgh", b"abcdefghi"]), "******gh******");
    }

    #[test]
    fn only_a_tail_that_may_become_a_secret_is_held_back() {
        let (mut masker, mut out) = (Masker::new(&["hunter22".to_owned()]), Vec::new());
        masker.push(b"password: hun", &mut out);
        assert_eq!(out, b"password: ");
        masker.push(b"g", &mut out);
        assert_eq!(out, b"password: hung");
    }

    proptest! {
        #[test]
        fn over_any_chunking_no_secret_comes_out_and_nothing_else_is_lost(
            secrets in vec("[ab]{6,9}", 1..4),
            text in "[ab ]{0,80}",
            cuts in vec(1_usize..8, 1..20),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let mut pieces = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            // The slow and obvious way: mark every byte of every occurrence, then replace each marked run.
            let mut marked = vec![false; text.len()];
            let mut starts = vec![false; text.len()];
            for secret in &secrets {
                for at in 0..text.len() {
                    if text[at..].starts_with(secret) {
                        starts[at] = true;
                        marked[at..at + secret.len()].fill(true);
                    }
                }
            }
            let mut expected = String::new();
            let mut cover = 0_usize;
            for (at, character) in text.char_indices() {
                if starts[at] {
                    if cover <= at {
                        expected.push_str("******");
                    }
                    let longest = secrets.iter().filter(|secret| text[at..].starts_with(**secret)).map(|secret| secret.len()).max();
                    cover = cover.max(at + longest.unwrap());
                }
                if !marked[at] {
                    expected.push(character);
                }
            }
            let got = mask(&secrets, &pieces);
            prop_assert_eq!(&got, &expected);
            for secret in secrets {
                prop_assert!(!got.contains(secret));
            }
        }
    }
}
