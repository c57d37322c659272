//! `make bench`: figures, no assertions. The agent runs on a real host, under systemd, as on users' servers; needs root.

#![expect(clippy::unwrap_used, reason = "a benchmark: a panic is its error message")]

use std::{
    fs,
    io::{BufRead, BufReader},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use consign_common::limits::STATEMENTS;
use consign_tests::{
    authorization,
    scene::{Production, binary},
};

/// Prints a time every 20 ms, for eight seconds.
const TELL: &str = "\n[[step]]\nname = \"tell\"\n\
                    shell = \"for i in $(seq 1 400); do echo at $(date +%s%N); sleep 0.02; done\"\n\
                    user = \"notes\"\n";

fn main() {
    // As few as meet the gate, and as many as go with one order.
    for statements in [4, STATEMENTS] {
        let milliseconds = authorization::Scene::new(statements).measure().as_secs_f64() * 1000.0;
        println!("authorization with 64 keys and {statements} statements: {milliseconds:.2} ms (median)");
    }
    // The one figure that needs no host.
    if std::env::args().nth(1).as_deref() == Some("authorization") {
        return;
    }
    for name in ["consign", "consign-agent"] {
        println!("size of {name}: {:.1} MiB", mib(fs::metadata(binary(name)).unwrap().len()));
    }
    let scene = Production::boot(&["web-1"]);
    let host = scene.fleet.hosts.first().unwrap();
    let agent = host.exec("systemctl show -P MainPID consign-agent").trim().to_owned();
    idle("agent, before its first deployment", |file| host.exec(&format!("cat /proc/{agent}/{file}")));
    latency(&scene);
    idle("agent, after a deployment", |file| host.exec(&format!("cat /proc/{agent}/{file}")));
    let coordinator = scene.coordinator.pid();
    idle("coordinator", |file| fs::read_to_string(format!("/proc/{coordinator}/{file}")).unwrap());
}

/// Resident memory, and CPU over a minute in which nothing is asked of it. `read` reads a file of the process's `/proc`.
fn idle(what: &str, read: impl Fn(&str) -> String) {
    let seconds = 60;
    let before = cpu_ticks(&read("stat"));
    std::thread::sleep(Duration::from_secs(seconds));
    let used = cpu_ticks(&read("stat")) - before;
    let per_second = rustix::param::clock_ticks_per_second();
    let share = used as f64 / per_second as f64 / seconds as f64 * 100.0;
    let status = read("status");
    let kilobytes = |field: &str| -> u64 {
        let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (resident, anonymous) = (kilobytes("VmRSS:"), kilobytes("RssAnon:"));
    println!(
        "idle {what}: RSS {:.1} MiB, of that {:.1} MiB its own and the rest the program file; CPU {share:.3} % of a core over {seconds} s",
        mib(resident * 1024),
        mib(anonymous * 1024),
    );
}

/// User and system time of the process, in clock ticks.
fn cpu_ticks(stat: &str) -> u64 {
    // After the command's closing parenthesis: state is field 3, utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields.get(11..13).unwrap().iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// From a write in a step on the server to the line on the follower's standard output. Both read one machine's clock.
fn latency(scene: &Production) {
    scene.publish("1.0.0", "0.13.4", &["001-notes.sql"], TELL);
    let mut child =
        scene.operator.spawn(&["rollout", "start", "notes@1.0.0", "--env", "production", "--follow"]);
    let mut milliseconds = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let Some((_, at)) = line.rsplit_once("at ") else { continue };
        let Ok(at) = at.trim().parse::<u64>() else { continue };
        milliseconds.push(now.saturating_sub(Duration::from_nanos(at)).as_secs_f64() * 1000.0);
    }
    child.wait().unwrap();
    milliseconds.sort_by(f64::total_cmp);
    let at =
        |percent: usize| milliseconds.get(milliseconds.len() * percent / 100).copied().unwrap_or(f64::NAN);
    println!(
        "write in a step to the follower's line: {} lines, median {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        milliseconds.len(),
        at(50),
        at(99),
        milliseconds.last().copied().unwrap_or(f64::NAN)
    );
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
