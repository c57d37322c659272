//! `make bench`: figures, no assertions. Prints what it measured, and on what.

#![expect(clippy::unwrap_used, reason = "a benchmark: a panic is its error message")]

use std::{
    fs,
    io::{BufRead, BufReader},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use consign_tests::scene::{Agent, Coordinator, Operator, binary, write_tree};

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let mut operator = Operator::init(&directory.path().join("operator"), &["app"], &["staging"]);
    let coordinator = Coordinator::start(directory.path(), &mut operator, "127.0.0.1");
    let word = ["--allow-app", "app", "--allow-user", "root"];
    let agent = Agent::start(directory.path(), &operator, "web-1", "staging", &word);

    for name in ["consign", "consign-agent"] {
        println!("size of {name}: {:.1} MiB", mib(fs::metadata(binary(name)).unwrap().len()));
    }
    idle("agent", agent.pid());
    idle("coordinator", coordinator.pid());
    latency(&operator, directory.path());
}

/// Resident memory, and CPU over a minute in which nothing is asked of it.
fn idle(what: &str, pid: u32) {
    let seconds = 60;
    let before = cpu_ticks(pid);
    std::thread::sleep(Duration::from_secs(seconds));
    let used = cpu_ticks(pid) - before;
    let per_second = rustix::param::clock_ticks_per_second();
    let share = used as f64 / per_second as f64 / seconds as f64 * 100.0;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kilobytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    println!(
        "idle {what}: RSS {:.1} MiB, CPU {share:.3} % of a core over {seconds} s",
        mib(kilobytes * 1024)
    );
}

/// User and system time of the process, in clock ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the command's closing parenthesis: state is field 3, utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields.get(11..13).unwrap().iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// From a write in a step to the line on the follower's standard output.
fn latency(operator: &Operator, directory: &std::path::Path) {
    let source = directory.join("latency");
    let plan = "app = \"app\"\n[[step]]\nname = \"tell\"\n\
                shell = \"for i in $(seq 1 400); do echo at $(date +%s%N); sleep 0.02; done\"\n\
                [[step]]\nname = \"activate\"\nactivate = true\n";
    write_tree(&source, &[("consign.toml", plan)]);
    operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", "1.0.0"]);
    let mut child = operator.spawn(&["rollout", "start", "app@1.0.0", "--env", "staging", "--follow"]);
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
