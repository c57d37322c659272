//! Acceptance cases T3, T4 and T5, which need a real host: what cannot be stopped, what falls silent, what loses its power.
//! The others are in `tests/processes/cases`.

use std::{
    fs,
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

use consign_tests::{
    hosts::Host,
    scene::{LONG, Production},
    wait::until,
};

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);

#[test]
fn t3_a_step_that_ignores_term_is_cancelled_after_its_grace_and_nothing_of_it_is_left() {
    let stubborn = r#"
[[step]]
name = "stubborn"
shell = "trap '' TERM; echo \"begin $CONSIGN_VERSION\" >> data/effects; sleep infinity"
user = "notes"
"#;
    let scene = Production::boot(&["web-1"]);
    let host = &scene.fleet.hosts[0];
    scene.publish("1.0.0", "0.13.3", &["001-notes.sql"], "");
    scene.publish("1.1.0", "0.13.4", &["001-notes.sql"], stubborn);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    let follower =
        scene.operator.spawn(&["rollout", "start", "notes@1.1.0", "--env", "production", "--follow"]);
    scene.wait_mid_step(host, "1.1.0");
    let id = scene.newest()["id"].as_str().unwrap().to_owned();
    assert!(!attempts(host).trim().is_empty(), "it has a cgroup");
    // The app itself is the user's too, and stays.
    let alive = || host.try_exec("pgrep -u notes -x sleep").code == 0;
    assert!(alive());

    let begun = Instant::now();
    scene.operator.ok(&["rollout", "abort", &id, "--reason", "wrong"]);
    let mut early = 0;
    let took = until("the rollout is aborted", LONG, || {
        let lived = alive();
        let shown = scene.operator.json(&["rollout", "show", &id]);
        let state = shown["deployments"][0]["state"].as_str().unwrap().to_owned();
        if state == "cancelled" {
            return Ok(begun.elapsed());
        }
        early += usize::from(lived);
        Err(shown)
    });
    // Whoever is told `cancelled` may believe it.
    assert!(!alive(), "reported as cancelled while it lives");
    assert_eq!(attempts(host), "", "reported as cancelled while its cgroup is there");
    println!("t3: cancelled {took:?} after the abort, seen alive {early} times before");
    assert!(took > GRACE && early > 0, "{took:?}: it was not stubborn");
    assert!(took < GRACE + Duration::from_secs(5), "{took:?}");
    let output = follower.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert_eq!(output.status.code(), Some(5), "{text}");

    // Nothing of the deployment stays, and the next one finds the place free.
    until("the deployment's unit is gone", LONG, || {
        let units = host.exec("systemctl list-units --plain --no-legend 'consign-deployment-*'");
        if units.is_empty() { Ok(()) } else { Err(units) }
    });
    scene.publish("1.2.0", "0.13.4", &["001-notes.sql"], "");
    assert_eq!(scene.roll_out("1.2.0").code, 0);
}

/// The cgroups of attempts, with what is in them.
fn attempts(host: &Host) -> String {
    host.exec("find /sys/fs/cgroup -path '*consign-deployment-*' -name 'attempt-*' -exec sh -c 'echo $0; cat $0/cgroup.procs' {} ';'")
}

/// Half a minute; ten minutes with `CONSIGN_SOAK=1`.
fn silence() -> Duration {
    let long = std::env::var_os("CONSIGN_SOAK").is_some();
    Duration::from_secs(if long { 600 } else { 30 })
}

/// One step ends in the dark, another goes on until after it.
#[test]
fn t4_a_silent_link_loses_and_doubles_nothing() {
    let silence = silence();
    let ticks = |server: &str| match server {
        "web-1" => 40,
        _ => (silence.as_secs() + 20) * 4,
    };
    let slow = format!(
        r#"
[[step]]
name = "slow"
timeout = "30m"
shell = """
echo "begin $CONSIGN_VERSION" >> data/effects
case $CONSIGN_SERVER in web-1) n={} ;; *) n={} ;; esac
for i in $(seq 1 $n); do echo "tick $i"; sleep 0.25; done
echo "end $CONSIGN_VERSION" >> data/effects
"""
user = "notes"
"#,
        ticks("web-1"),
        ticks("web-2")
    );
    let scene = Production::boot(&["web-1", "web-2"]);
    scene.publish("1.0.0", "0.13.3", &["001-notes.sql"], "");
    scene.publish("1.1.0", "0.13.4", &["001-notes.sql"], &slow);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    let mut follower =
        scene.operator.spawn(&["rollout", "start", "notes@1.1.0", "--env", "production", "--follow"]);
    let stdout = follower.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.map(|line| (Instant::now(), line)).collect::<Vec<_>>()
    });
    for host in &scene.fleet.hosts {
        scene.wait_mid_step(host, "1.1.0");
    }
    for host in &scene.fleet.hosts {
        host.cut_silently();
    }
    let cut = Instant::now();
    // Silence, not a refusal: the connection is not answered at all.
    let (gateway, port) = scene.coordinator.address.rsplit_once(':').unwrap();
    let asked = scene.fleet.hosts[0].try_exec(&format!("curl -s -m 3 telnet://{gateway}:{port} < /dev/null"));
    assert_eq!(asked.code, 28, "curl's timeout: {asked:?}");
    assert_eq!(scene.fleet.hosts[0].exec("cat /sys/class/net/host0/carrier"), "1\n");
    std::thread::sleep(silence.saturating_sub(cut.elapsed()));
    let effects = |host: &Host| fs::read_to_string(host.path("/srv/notes/shared/data/effects")).unwrap();
    assert!(effects(&scene.fleet.hosts[0]).contains("end 1.1.0"), "the step went on in the dark");
    for host in &scene.fleet.hosts {
        host.join_silently();
    }
    let joined = Instant::now();
    let status = follower.wait().unwrap();
    let seen = reader.join().unwrap();
    let text: String = seen.iter().map(|(_, line)| format!("{line}\n")).collect();
    assert_eq!(status.code(), Some(0), "{text}");
    let first = seen.iter().find(|(at, line)| *at > joined && line.contains("| tick")).unwrap();
    println!(
        "t4: silent for {silence:?}; first line {:?} after it, rollout ended {:?} after it",
        first.0 - joined,
        joined.elapsed()
    );
    // What was on its way when the link fell silent may still be printed.
    let dark = cut + Duration::from_secs(2);
    let came = seen.iter().filter(|(at, line)| *at > dark && *at < joined && line.contains("| tick"));
    assert_eq!(came.count(), 0, "the link was not silent: {text}");
    for host in &scene.fleet.hosts {
        let name = host.name();
        assert_eq!(effects(host), "begin 1.1.0\nend 1.1.0\n", "{name}");
        let expected: Vec<String> = (1..=ticks(name)).map(|tick| format!("tick {tick}")).collect();
        let tick = |line: &str| line.split_once("| ").map(|(_, text)| text.to_owned());
        let followed: Vec<String> = seen
            .iter()
            .filter(|(_, line)| line.contains(&format!(" {name} slow | ")))
            .filter_map(|(_, line)| tick(line))
            .collect();
        assert_eq!(followed, expected, "{name}, as followed");
        let kept: Vec<String> = scene.log_of(name, "slow").iter().filter_map(|line| tick(line)).collect();
        assert_eq!(kept, expected, "{name}, as kept");
        assert_eq!(scene.serves(host), "0.13.4");
    }
    let shown = scene.newest();
    for deployment in shown["deployments"].as_array().unwrap() {
        assert_eq!(deployment["state"], "succeeded", "{shown}");
        assert!(
            deployment["steps"].as_array().unwrap().iter().all(|step| step["attempts"].as_u64() <= Some(1))
        );
    }
}

/// Three steps with an effect each, and one behind the switch.
fn effects_plan() -> String {
    let step = |name: &str| {
        format!(
            "\n[[step]]\nname = \"{name}\"\nuser = \"notes\"\n\
             shell = \"echo $CONSIGN_VERSION {name} >> data/effects; for i in 1 2 3 4; do echo {name} $i; sleep 0.25; done\"\n"
        )
    };
    ["one", "two", "three"].map(step).concat()
}

#[test]
fn t5_power_lost_at_any_moment_leaves_an_end_that_is_known_or_said_to_be_unknown() {
    let seed = std::env::var("CONSIGN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    let rounds: u32 = std::env::var("CONSIGN_POWER_ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(6);
    println!("CONSIGN_TEST_SEED={seed} CONSIGN_POWER_ROUNDS={rounds}");
    let mut random = seed | 1;
    let mut scene = Production::boot(&["web-1"]);
    scene.publish("1.0.0", "0.13.3", &["001-notes.sql"], "");
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    let mut unknown = 0;
    for round in 1..=rounds {
        let version = format!("1.{round}.0");
        scene.publish(&version, "0.13.4", &["001-notes.sql"], &effects_plan());
        let before = scene.fleet.hosts[0].exec("readlink /srv/notes/current");
        let start = ["rollout", "start", &format!("notes@{version}"), "--env", "production"];
        let id = scene.operator.json(&start)["id"].as_str().unwrap().to_owned();
        // xorshift64: within the time that the rollout takes.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = Duration::from_millis(random % 5000);
        std::thread::sleep(moment);
        scene.fleet.host("web-1").power_off();
        scene.fleet.host("web-1").power_on();
        let shown = until("the rollout ends", LONG, || {
            let shown = scene.operator.json(&["rollout", "show", &id]);
            if shown["ended_ms"].is_u64() { Ok(shown) } else { Err(shown) }
        });
        let (state, because) = (shown["state"].as_str().unwrap(), shown["because"].as_str().unwrap());
        println!("t5: round {round}: power lost after {moment:?}: {state}: {because}");
        let host = &scene.fleet.hosts[0];
        let effects = fs::read_to_string(host.path("/srv/notes/shared/data/effects")).unwrap_or_default();
        let mine: Vec<&str> =
            effects.lines().filter_map(|line| line.strip_prefix(&format!("{version} "))).collect();
        // None twice, none out of order, none without the one before it.
        assert!(["one", "two", "three"].starts_with(&mine), "{mine:?}");
        let current = host.exec("readlink /srv/notes/current");
        match state {
            "succeeded" => {
                assert_eq!(mine.len(), 3, "reported, and not done: {shown}");
                assert!(current.contains(&version), "{current}");
            }
            "unknown" => {
                assert!(shown["exit_code"] == 7 && because.contains("web-1"), "{shown}");
                assert!(current == before || current.contains(&version), "{current}");
                unknown += 1;
            }
            other => panic!("{other}: {shown}"),
        }
        scene.operator.wait_online("web-1");
    }
    println!("t5: {rounds} power losses, {unknown} unknown by contract");
    // Whatever it was, the next version goes on from here, and the app serves.
    scene.publish("2.0.0", "0.13.3", &["001-notes.sql"], &effects_plan());
    assert_eq!(scene.roll_out("2.0.0").code, 0);
    assert_eq!(scene.serves(&scene.fleet.hosts[0]), "0.13.3");
}
