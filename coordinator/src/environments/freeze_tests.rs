use super::*;

fn once(from: &str, to: &str, timezone: Option<&str>) -> Freeze {
    Freeze { days: Vec::new(), from: from.into(), to: to.into(), timezone: timezone.map(str::to_owned) }
}

fn weekly(days: &[&str], from: &str, to: &str, timezone: &str) -> Freeze {
    let days = days.iter().map(|day| (*day).to_owned()).collect();
    Freeze { days, from: from.into(), to: to.into(), timezone: Some(timezone.into()) }
}

fn ms(text: &str) -> UnixMs {
    UnixMs(text.parse::<Timestamp>().unwrap().as_millisecond().try_into().unwrap())
}

/// The simulated clock: at each of these moments, until when it is frozen (empty: it is not).
fn check(freezes: &[Freeze], expected: &[(&str, &str)]) {
    let windows: Vec<Window> = freezes.iter().map(|freeze| freeze.window().unwrap()).collect();
    for (now, until) in expected {
        let until = Some(*until).filter(|until| !until.is_empty()).map(ms);
        assert_eq!(frozen_until(&windows, ms(now)), until, "at {now}");
    }
}

#[test]
fn a_window_is_past_present_or_to_come() {
    let christmas = once("2026-12-23T18:00:00Z", "2027-01-02T06:00:00Z", None);
    check(
        &[christmas],
        &[
            ("2026-12-23T17:59:59.999Z", ""),
            ("2026-12-23T18:00:00Z", "2027-01-02T06:00:00Z"),
            ("2026-12-31T23:59:59Z", "2027-01-02T06:00:00Z"),
            ("2027-01-02T05:59:59.999Z", "2027-01-02T06:00:00Z"),
            ("2027-01-02T06:00:00Z", ""),
        ],
    );
    // An offset of its own, and a zone's local time, mean the same moments.
    for freeze in [
        once("2026-12-24T00:00:00+01:00", "2026-12-27T00:00:00+01:00", None),
        once("2026-12-24T00:00", "2026-12-27T00:00:00", Some("Europe/Berlin")),
        once("2026-12-24 00:00:00", "2026-12-27 00:00", Some("Europe/Berlin")),
    ] {
        let expected = [
            ("2026-12-23T22:59:59Z", ""),
            ("2026-12-23T23:00:00Z", "2026-12-26T23:00:00Z"),
            ("2026-12-26T23:00:00Z", ""),
        ];
        check(&[freeze], &expected);
    }
}

#[test]
fn windows_of_every_week_last_over_midnight() {
    // Friday, 2026-03-06.
    let friday = weekly(&["fri"], "16:00", "24:00", "Europe/Berlin");
    check(
        std::slice::from_ref(&friday),
        &[
            ("2026-03-06T14:59:59Z", ""),
            ("2026-03-06T15:00:00Z", "2026-03-06T23:00:00Z"),
            ("2026-03-06T23:00:00Z", ""),
            ("2026-03-07T15:00:00Z", ""),
            ("2026-03-13T15:00:00Z", "2026-03-13T23:00:00Z"),
        ],
    );
    let nights = weekly(&["mon", "tue"], "22:00", "06:00", "UTC");
    check(
        &[nights],
        &[
            ("2026-03-02T21:59:59Z", ""),
            ("2026-03-02T22:00:00Z", "2026-03-03T06:00:00Z"),
            ("2026-03-03T05:59:59Z", "2026-03-03T06:00:00Z"),
            ("2026-03-03T06:00:00Z", ""),
            ("2026-03-03T23:00:00Z", "2026-03-04T06:00:00Z"),
            ("2026-03-04T03:00:00Z", "2026-03-04T06:00:00Z"),
            // The night from Wednesday to Thursday is none of them.
            ("2026-03-05T03:00:00Z", ""),
        ],
    );
}

#[test]
fn windows_that_follow_each_other_are_one_freeze() {
    let weekend = [
        weekly(&["fri"], "16:00", "24:00", "Europe/Berlin"),
        weekly(&["sat", "sun"], "00:00", "24:00", "Europe/Berlin"),
        once("2026-03-08T22:30:00Z", "2026-03-09T08:00:00Z", None),
    ];
    check(
        &weekend,
        &[
            ("2026-03-06T16:00:00Z", "2026-03-09T08:00:00Z"),
            ("2026-03-08T12:00:00Z", "2026-03-09T08:00:00Z"),
            ("2026-03-14T12:00:00Z", "2026-03-15T23:00:00Z"),
        ],
    );
    // All days: it never ends, and neither does the question.
    let always = weekly(&DAYS, "00:00", "24:00", "UTC").window().unwrap();
    let until = frozen_until(&[always], ms("2026-03-06T16:00:00Z")).unwrap();
    assert!(until > ms("2028-01-01T00:00:00Z"));
}

/// On 2026-03-29 at 02:00 Berlin's clocks go to 03:00; on 2026-10-25 at 03:00 they go back to 02:00.
#[test]
fn a_time_that_the_clock_change_leaves_out_or_has_twice_freezes_the_longer_time() {
    let berlin = "Europe/Berlin";
    // 02:30 does not exist: as a beginning it is 01:30 (00:30Z), as an end 03:30 (01:30Z).
    check(
        &[weekly(&["sun"], "02:30", "12:00", berlin)],
        &[
            ("2026-03-29T00:29:59Z", ""),
            ("2026-03-29T00:30:00Z", "2026-03-29T10:00:00Z"),
            ("2026-03-22T01:29:59Z", ""),
            ("2026-03-22T01:30:00Z", "2026-03-22T11:00:00Z"),
        ],
    );
    check(
        &[once("2026-03-28T22:00", "2026-03-29T02:30", Some(berlin))],
        &[("2026-03-29T01:29:59Z", "2026-03-29T01:30:00Z"), ("2026-03-29T01:30:00Z", "")],
    );
    // 02:30 comes twice: as a beginning it is the first (00:30Z), as an end the second (01:30Z).
    check(
        &[weekly(&["sun"], "02:30", "12:00", berlin)],
        &[
            ("2026-10-25T00:29:59Z", ""),
            ("2026-10-25T00:30:00Z", "2026-10-25T11:00:00Z"),
            ("2026-10-25T01:30:00Z", "2026-10-25T11:00:00Z"),
        ],
    );
    check(
        &[weekly(&["sat"], "22:00", "02:30", berlin)],
        &[
            ("2026-10-24T20:00:00Z", "2026-10-25T01:30:00Z"),
            ("2026-10-25T01:29:59Z", "2026-10-25T01:30:00Z"),
            ("2026-10-25T01:30:00Z", ""),
        ],
    );
    // A whole day is what the zone calls one: 23 hours, and 25.
    let sunday = [weekly(&["sun"], "00:00", "24:00", berlin)];
    check(&sunday, &[("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), ("2026-03-29T22:00:00Z", "")]);
    check(&sunday, &[("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), ("2026-10-25T23:00:00Z", "")]);
    // Before and after the change the same local time is another moment.
    let evenings = [weekly(&["fri"], "16:00", "24:00", berlin)];
    check(
        &evenings,
        &[("2026-03-27T15:00:00Z", "2026-03-27T23:00:00Z"), ("2026-04-03T14:00:00Z", "2026-04-03T22:00:00Z")],
    );
}

#[test]
fn what_cannot_be_meant_has_its_place() {
    let field = |freeze: Freeze| freeze.window().unwrap_err().field;
    assert_eq!(field(weekly(&["fri", "friday"], "16:00", "24:00", "UTC")), Field::Days(1));
    for bad in ["24:00", "16", "16:00:00", "25:00", "16:60", "+1:00", "1:000", ""] {
        assert_eq!(field(weekly(&["fri"], bad, "23:59", "UTC")), Field::From, "{bad}");
    }
    assert_eq!(field(weekly(&["fri"], "16:00", "16:00", "UTC")), Field::To);
    assert_eq!(field(weekly(&["fri"], "16:00", "17:00", "Europe/Berlim")), Field::Timezone);
    assert_eq!(field(weekly(&["fri"], "16:00", "17:00", "../../etc/passwd")), Field::Timezone);
    let nowhere = Freeze { timezone: None, ..weekly(&["fri"], "16:00", "17:00", "UTC") };
    assert_eq!(field(nowhere), Field::From);
    assert_eq!(field(once("2026-12-24", "soon", Some("UTC"))), Field::To);
    assert_eq!(field(once("2026-12-24T00:00", "2026-12-25T00:00", None)), Field::From);
    assert_eq!(field(once("2026-12-24T00:00:00Z", "2026-12-25T00:00:00Z", Some("UTC"))), Field::From);
    assert_eq!(field(once("2026-12-24T00:00:00Z", "2026-12-24T00:00:00Z", None)), Field::To);
    assert_eq!(field(once("2026-12-24T00:00:00Z", "2026-12-23T00:00:00Z", None)), Field::To);
}
