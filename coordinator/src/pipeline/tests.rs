//! Every combination of what a candidate can wait for, and a clock that is turned.

use consign_common::{name::Environment, time::UnixMs, trust::OrderingNumber};

use super::*;
use crate::environments::{Deploy, Freeze, Keep, Window};

const HOUR: u64 = 3_600_000;
/// 2026-03-06T12:00:00Z, a Friday.
const NOON: u64 = 1_772_798_400_000;
const NOW: UnixMs = UnixMs(NOON);

fn environment(name: &str) -> Environment {
    name.parse().unwrap()
}

fn published(ms: u64) -> OrderingNumber {
    OrderingNumber { epoch: 1, ms: UnixMs(ms) }
}

/// Published at this millisecond, and nothing that keeps it from beginning.
fn candidate(number: i64, version: &str, at: u64) -> Candidate {
    Candidate {
        number,
        version: version.parse().unwrap(),
        platform: None,
        published: published(at),
        since: UnixMs(NOON - HOUR),
        origin: Origin::Published,
        gate: GateState::Met,
        ordered_by: OrderedBy::Publication,
        refused: None,
    }
}

fn rules() -> Rules {
    Rules { deploy: Deploy::OnPublish, keep: Keep::All, windows: Vec::new(), veto_ms: 0 }
}

fn situation(waiting: Vec<Candidate>) -> Situation {
    Situation {
        now: NOW,
        root_expires: UnixMs(NOON + 1000 * HOUR),
        behind: None,
        hold: None,
        busy: None,
        taken: OrderingNumber::default(),
        started: Vec::new(),
        waiting,
    }
}

fn window(from: &str, to: &str) -> Window {
    let freeze = Freeze { days: Vec::new(), from: from.into(), to: to.into(), timezone: None };
    freeze.window().unwrap()
}

fn rollout() -> (consign_common::name::Id, consign_common::name::Version) {
    (consign_common::name::Id::from_bytes([7; 16]), "0.9".parse().unwrap())
}

#[test]
fn it_begins_where_nothing_keeps_it_and_in_no_other_case() {
    let deploys = [
        (Deploy::Manual, Origin::Published, Some("manual")),
        (Deploy::OnPublish, Origin::Published, None),
        (Deploy::OnPublish, Origin::Green(environment("staging")), Some("published")),
        (Deploy::After(environment("staging")), Origin::Published, Some("green")),
        (Deploy::After(environment("staging")), Origin::Green(environment("staging")), None),
        (Deploy::After(environment("staging")), Origin::Green(environment("qa")), Some("green")),
    ];
    let windows = [
        (Vec::new(), None),
        (vec![window("2026-03-06T10:00:00Z", "2026-03-06T12:00:00Z")], None),
        (vec![window("2026-03-06T12:00:01Z", "2026-03-06T13:00:00Z")], None),
        (vec![window("2026-03-06T12:00:00Z", "2026-03-06T13:00:00Z")], Some("freeze")),
    ];
    let vetoes = [(0, None), (HOUR, None), (HOUR + 1, Some("veto")), (u64::MAX, Some("veto"))];
    let gates = [(GateState::Met, None), (GateState::Missing("one of qa".into()), Some("gate"))];
    let holds = [(None, None), (Some("rolled back".to_owned()), Some("hold"))];
    let behinds = [(None, None), (Some("restored".to_owned()), Some("behind"))];
    let rollouts = [(None, None), (Some(rollout()), Some("rollout"))];
    let roots = [(NOON + 1, None), (NOON, Some("trust-root")), (0, Some("trust-root"))];
    let refusals = [(None, None), (Some("no server".to_owned()), Some("refused"))];

    let (mut begun, mut looked) = (0, 0);
    for (deploy, origin, by_deploy) in &deploys {
        for (windows, by_window) in &windows {
            for (veto_ms, by_veto) in &vetoes {
                for (gate, by_gate) in &gates {
                    for (hold, by_hold) in &holds {
                        for (behind, by_behind) in &behinds {
                            for (busy, by_rollout) in &rollouts {
                                for (expires, by_root) in &roots {
                                    for (refused, by_refusal) in &refusals {
                                        let rules = Rules {
                                            deploy: deploy.clone(),
                                            keep: Keep::All,
                                            windows: windows.clone(),
                                            veto_ms: *veto_ms,
                                        };
                                        let one = Candidate {
                                            origin: origin.clone(),
                                            gate: gate.clone(),
                                            refused: refused.clone(),
                                            ..candidate(1, "1.0", 100)
                                        };
                                        let situation = Situation {
                                            root_expires: UnixMs(*expires),
                                            behind: behind.clone(),
                                            hold: hold.clone(),
                                            busy: busy.clone(),
                                            ..situation(vec![one])
                                        };
                                        // In the order in which they are told.
                                        let kept_by = [
                                            by_root, by_behind, by_deploy, by_hold, by_gate, by_veto,
                                            by_window, by_rollout, by_refusal,
                                        ];
                                        let expected = kept_by.into_iter().find_map(|by| *by);
                                        let verdicts = judge(&rules, &situation);
                                        let [(1, verdict)] = &verdicts[..] else { panic!("{verdicts:?}") };
                                        let told = match verdict {
                                            Verdict::Start => None,
                                            Verdict::Waits(wait) => Some(wait.as_str()),
                                            Verdict::Superseded(by) => panic!("{by}"),
                                        };
                                        assert_eq!(told, expected, "{rules:?} {situation:?}");
                                        begun += usize::from(told.is_none());
                                        looked += 1;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    // 2 ways to be one, 3 windows, 2 vetoes, and one of each of the others.
    assert_eq!((begun, looked), (12, 6 * 4 * 4 * 2 * 2 * 2 * 2 * 3 * 2));
}

/// The clock is turned; what is told to be over at a time is over then, and not a millisecond before.
#[test]
fn what_ends_by_itself_ends_when_it_is_told_to() {
    let rules = Rules {
        windows: vec![
            window("2026-03-06T12:30:00Z", "2026-03-06T14:00:00Z"),
            window("2026-03-06T13:30:00Z", "2026-03-06T15:00:00Z"),
            window("2026-03-06T20:00:00Z", "2026-03-06T21:00:00Z"),
        ],
        veto_ms: HOUR + HOUR / 4,
        ..rules()
    };
    let mut situation = situation(vec![candidate(1, "1.0", 100)]);
    let mut told = Vec::new();
    let mut looks = 0;
    loop {
        looks += 1;
        let verdicts = judge(&rules, &situation);
        let Some((1, Verdict::Waits(wait))) = verdicts.first() else { break };
        told.push(format!("{}: {wait}", situation.now));
        let until = wait.until().unwrap();
        situation.now = UnixMs(until.0 - 1);
        assert_eq!(judge(&rules, &situation).first().unwrap().1, Verdict::Waits(wait.clone()));
        situation.now = until;
    }
    // It begins between the veto period and the freeze; nobody looked meanwhile, and it began all the same.
    assert_eq!(told, ["2026-03-06T12:00:00Z: the end of the veto period, at 2026-03-06T12:15:00Z"]);
    assert_eq!((looks, situation.now), (2, UnixMs(NOON + HOUR / 4)));

    // Whoever looks half an hour later finds both windows, as one freeze, and then a beginning at its end.
    situation.now = UnixMs(NOON + HOUR / 2);
    let verdicts = judge(&rules, &situation);
    let Some((1, Verdict::Waits(wait))) = verdicts.first() else { panic!("{verdicts:?}") };
    assert_eq!(wait.to_string(), "the end of the freeze, at 2026-03-06T15:00:00Z");
    situation.now = wait.until().unwrap();
    assert_eq!(judge(&rules, &situation), [(1, Verdict::Start)]);
}

#[test]
fn a_frozen_weekend_is_over_on_monday() {
    let weekly = |days: &[&str], from: &str| {
        let days = days.iter().map(|day| (*day).to_owned()).collect();
        let berlin = Some("Europe/Berlin".to_owned());
        Freeze { days, from: from.into(), to: "24:00".into(), timezone: berlin }.window().unwrap()
    };
    let rules =
        Rules { windows: vec![weekly(&["fri"], "16:00"), weekly(&["sat", "sun"], "00:00")], ..rules() };
    let mut situation = situation(vec![candidate(1, "1.0", 100)]);
    // Every quarter of an hour of two weeks.
    for quarter in 0..14 * 24 * 4 {
        situation.now = UnixMs(NOON + quarter * HOUR / 4);
        // Friday noon is 13:00 in Berlin: three hours later it freezes, until Monday at 23:00 UTC of Sunday.
        let of_week = quarter % (7 * 24 * 4);
        let frozen = (3 * 4..(11 + 48) * 4).contains(&of_week);
        let verdicts = judge(&rules, &situation);
        let waits = matches!(verdicts[..], [(1, Verdict::Waits(Wait::Freeze { .. }))]);
        assert_eq!(waits, frozen, "{}", situation.now);
    }
}

#[test]
fn one_begins_at_a_time_and_the_oldest_first() {
    let three = vec![candidate(3, "1.2", 300), candidate(1, "1.0", 100), candidate(2, "1.1", 200)];
    let verdicts = judge(&rules(), &situation(three.clone()));
    let turn = || Verdict::Waits(Wait::Turn { version: "1.0".parse().unwrap() });
    assert_eq!(verdicts, [(1, Verdict::Start), (2, turn()), (3, turn())]);

    // One whose gate is not met holds up no other.
    let mut waiting = three;
    waiting[1].gate = GateState::Missing("approval".into());
    let verdicts = judge(&rules(), &situation(waiting));
    assert_eq!(verdicts[1], (2, Verdict::Start));
    assert!(matches!(verdicts[0], (1, Verdict::Waits(Wait::Gate { .. }))));
}

#[test]
fn only_the_newest_waits_where_that_is_asked() {
    let newest = Rules { keep: Keep::Newest, ..rules() };
    let mut waiting = vec![candidate(1, "1.0", 100), candidate(2, "1.1", 200)];
    let by = Verdict::Superseded(Superseded::Newer { version: "1.1".parse().unwrap() });
    assert_eq!(judge(&newest, &situation(waiting.clone())), [(1, by.clone()), (2, Verdict::Start)]);
    // Also while the newer one waits itself.
    waiting[1].gate = GateState::Missing("approval".into());
    let verdicts = judge(&newest, &situation(waiting.clone()));
    assert_eq!(verdicts[0], (1, by.clone()));
    // Each platform has its own newest.
    waiting[1].platform = Some("linux-aarch64".parse().unwrap());
    assert_eq!(judge(&newest, &situation(waiting))[0], (1, Verdict::Start));
    // And after the newer one has begun.
    let begun = Started { published: published(200), version: "1.1".parse().unwrap(), platform: None };
    let situation = Situation { started: vec![begun], ..situation(vec![candidate(1, "1.0", 100)]) };
    assert_eq!(judge(&newest, &situation), [(1, by)]);
}

/// A hotfix that was built later than a candidate that waits, and goes before it: servers let the older one through where
/// they order by approvals, and refuse it where they order by publications.
#[test]
fn what_servers_would_refuse_as_older_is_superseded() {
    let hotfix = Started { published: published(200), version: "1.0.1".parse().unwrap(), platform: None };
    let by_publication = candidate(1, "1.0", 100);
    let by_approval = Candidate { ordered_by: OrderedBy::Approval, ..by_publication.clone() };
    let overtaken = Verdict::Superseded(Superseded::Overtaken);
    for (one, verdict) in [(by_publication, overtaken), (by_approval, Verdict::Start)] {
        let begun = Situation { started: vec![hotfix.clone()], ..situation(vec![one.clone()]) };
        assert_eq!(judge(&rules(), &begun), [(1, verdict.clone())]);
        let taken = Situation { taken: published(101), ..situation(vec![one.clone()]) };
        assert_eq!(judge(&rules(), &taken), [(1, verdict)]);
        let same = Situation { taken: published(100), ..situation(vec![one]) };
        assert_eq!(judge(&rules(), &same), [(1, Verdict::Start)]);
    }
}
