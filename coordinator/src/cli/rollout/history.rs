//! Who did what to a rollout, and what it did by itself.

use consign_common::time::UnixMs;
use consign_proto::v1;

use super::resolve::resolve;
use crate::cli::{
    client::{Client, unary},
    failure::{Exit, Result},
    output::{Happening, History},
    print::Printer,
    text::{precise, table},
};

pub(super) async fn run(given: &str, client: &Client, printer: &Printer) -> Result<Exit> {
    let request = v1::ShowHistoryRequest { rollout: resolve(client, given).await? };
    let answer =
        client.operators().show_history(unary(request)).await.map_err(|status| client.failure(status))?;
    printer.show(&History::from(answer.into_inner()), |history| happenings(&history.happenings))?;
    Ok(Exit::Done)
}

/// One line each; what nobody did is the rollout's own doing.
pub(crate) fn happenings(happenings: &[Happening]) -> String {
    let rows: Vec<Vec<String>> = happenings
        .iter()
        .map(|it| {
            let who = if it.who.is_empty() { "-".to_owned() } else { it.who.clone() };
            vec![precise(UnixMs(it.at_ms)), who, it.what.clone(), it.because.clone()]
        })
        .collect();
    table(&["TIME", "WHO", "WHAT", "BECAUSE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_have_names_and_what_followed_has_none() {
        let line = |at_ms: u64, who: &str, what: &str, because: &str| Happening {
            at_ms: 1_700_000_000_000 + at_ms,
            who: who.into(),
            what: what.into(),
            because: because.into(),
        };
        insta::assert_snapshot!(happenings(&[
            line(0, "ada", "start", "spring sale"),
            line(40, "", "wave 1", "wave 1 of 2: web-1 is to come"),
            line(9_000, "", "wave 1: bake", "waiting for wave 2 of 2: bake 5m00s left"),
            line(12_000, "grace", "pause", "lunch\u{1b}[2J"),
            line(
                12_000,
                "",
                "paused",
                "paused: paused by grace: lunch; waiting for wave 2 of 2: bake 4m57s left"
            ),
            line(20_000, "grace", "decide step migrate on web-1: done", "seen in the database"),
        ]));
    }
}
