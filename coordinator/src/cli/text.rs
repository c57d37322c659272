//! Small texts: spans, sizes, times, tables.

use std::time::Duration;

use consign_common::{
    name::{App, Version},
    terminal::escape_line,
    time::UnixMs,
};

/// `0.4 s`, `12 s`, `3 min 4 s`, `2 h 5 min`, `9 d`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..10 => format!("{}.{} s", seconds, span.subsec_millis() / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `shop@1.4.0`
pub(super) fn artifact_name(text: &str) -> Result<(App, Version), String> {
    let (app, version) = text.split_once('@').ok_or("give APP@VERSION, as shop@1.4.0")?;
    let app = app.parse::<App>().map_err(|error| error.to_string())?;
    Ok((app, version.parse::<Version>().map_err(|error| error.to_string())?))
}

/// `365d`, `12h`, `30m`, `45s`.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    const RULE: &str = "a span is a number with d, h, m or s, as in 365d";
    let unit = text.chars().last().ok_or(RULE)?;
    let seconds: u64 = match unit {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(RULE.into()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or(RULE)?;
    let whole = number.checked_mul(seconds).filter(|whole| (1..=100 * 365 * 86_400).contains(whole));
    whole.map(Duration::from_secs).ok_or_else(|| "a span is at least 1s and at most a hundred years".into())
}

/// `512 B`, `1.4 KiB`, `12.0 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, so that no float is needed.
    let mut tenths = u128::from(bytes) * 10;
    let mut name = "B";
    for unit in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        name = unit;
    }
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// RFC 3339 in UTC with milliseconds.
pub(super) fn precise(at: UnixMs) -> String {
    let seconds = at.to_string();
    match seconds.strip_suffix('Z') {
        Some(seconds) => format!("{seconds}.{:03}Z", at.0 % 1000),
        None => seconds,
    }
}

/// `3 min ago`, `never` for 0.
pub(super) fn ago(at_ms: u64, now: UnixMs) -> String {
    if at_ms == 0 {
        return "never".into();
    }
    let seconds = now.since(UnixMs(at_ms)).as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// The first digits of an id or digest, for people.
pub(super) fn short(id: &str, digits: usize) -> String {
    escape_line(id).chars().take(digits).collect()
}

/// A name and a value per line.
pub(super) fn pairs(rows: &[Vec<String>]) -> String {
    columns(rows.iter().map(|row| row.iter().map(|cell| escape_line(cell)).collect()).collect())
}

/// Columns padded to their widest cell; every cell is escaped.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(head.iter().map(ToString::to_string).collect())
        .chain(rows.iter().map(|row| row.iter().map(|cell| escape_line(cell)).collect()))
        .collect();
    columns(rows)
}

fn columns(rows: Vec<Vec<String>>) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|at| {
            rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_well() {
        let spans = [0, 449, 9_999, 10_000, 184_000, 7_500_000, 800_000_000];
        let texts = spans.map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(texts, ["0.0 s", "0.4 s", "9.9 s", "10 s", "3 min 4 s", "2 h 5 min", "9 d"]);
        let sizes = [0, 1023, 1024, 1536, 1 << 20, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "16777215.9 TiB"]);
    }

    #[test]
    fn spans_are_read_strictly() {
        assert_eq!(parse_span("365d"), Ok(Duration::from_secs(31_536_000)));
        for bad in ["", "d", "1", "-1d", "1w", "1.5h", "0s", "99999999999999d", "1 d", "1é"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(precise(UnixMs(1_700_000_000_042)), "2023-11-14T22:13:20.042Z");
    }

    #[test]
    fn a_table_shows_no_escape_sequence() {
        let text =
            table(&["A", "B"], &[vec!["x\u{1b}[2J".into(), "y".into()], vec!["z".into(), String::new()]]);
        assert_eq!(text, "A         B\nx\\x1b[2J  y\nz\n");
    }
}
