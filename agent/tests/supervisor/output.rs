//! What becomes of output: order, secrets, limits, full disks, masses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use consign_agent::supervisor::AttemptSpec;
use consign_common::deployment::{
    StepOutcome,
    log::{Decoder, Record, Stream},
};

use crate::harness::{Deployment, until};

#[tokio::test]
async fn output_is_on_disk_while_the_step_runs_and_in_order() {
    let deployment = Deployment::start().await;
    let next = deployment.scratch("next");
    let wait = format!("while [ ! -e {0} ]; do sleep 0.01; done; rm {0}", next.display());
    let spec = deployment.shell(&format!("echo a; {wait}; echo b >&2; {wait}; printf '\\377\\033[31mc'"));
    deployment.begin(&spec).await;
    until("a", || deployment.said(spec.attempt, Stream::Stdout) == "a\n").await;
    fs::write(&next, "").unwrap();
    until("b", || deployment.said(spec.attempt, Stream::Stderr) == "b\n").await;
    fs::write(&next, "").unwrap();
    let record = deployment.end(spec.attempt).await;
    let records = deployment.records(spec.attempt);
    let seen: Vec<_> = records.iter().map(|record| (record.stream, record.data.as_slice())).collect();
    let expected: [(Stream, &[u8]); 3] =
        [(Stream::Stdout, b"a\n"), (Stream::Stderr, b"b\n"), (Stream::Stdout, b"\xff\x1b[31mc")];
    assert_eq!(seen, expected);
    assert!(records.is_sorted_by_key(|record| record.at));
    assert_eq!(record.log_length, deployment.log_bytes(spec.attempt).len() as u64);
}

#[tokio::test]
async fn a_secret_never_reaches_the_disk_also_in_pieces() {
    let deployment = Deployment::start().await;
    let script = "printf 'pw=correct-ho'; sleep 0.1; printf 'rse\\n'; printf 'correct' >&2; sleep 0.1; echo ' is fine' >&2; printf correct-hors";
    let spec = AttemptSpec { secrets: vec!["correct-horse".to_owned()], ..deployment.shell(script) };
    assert_eq!(deployment.execute(&spec).await.result, StepOutcome::Succeeded);
    assert_eq!(deployment.said(spec.attempt, Stream::Stdout), "pw=******\ncorrect-hors");
    assert_eq!(deployment.said(spec.attempt, Stream::Stderr), "correct is fine\n");
}

/// Bytes of output, of gaps, and the last bytes, without holding the whole log.
fn survey(path: &Path) -> (u64, u64, Vec<u8>) {
    let (mut decoder, mut kept, mut missing, mut last) = (Decoder::default(), 0, 0, Vec::new());
    let mut file = fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = std::io::Read::read(&mut file, &mut buffer).unwrap();
        if count == 0 {
            assert_eq!(decoder.torn(), 0);
            return (kept, missing, last);
        }
        decoder.push(&buffer[..count]);
        while let Some(record) = decoder.next_record().unwrap() {
            match record.missing() {
                Some(gap) => missing += gap,
                None => {
                    kept += record.data.len() as u64;
                    last = record.data;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_gibibyte_and_an_endless_line_take_constant_memory() {
    let deployment = Deployment::start().await;
    let script = "head -c 104857600 /dev/zero | tr '\\0' x; head -c 1073741824 /dev/zero; printf end";
    let spec = AttemptSpec { log_limit: 32 << 20, timeout_ms: 600_000, ..deployment.shell(script) };
    let identity = deployment.begin(&spec).await;
    let supervisor = deployment.supervisor_pid(&identity);
    let record = deployment.end(spec.attempt).await;
    assert_eq!(record.result, StepOutcome::Succeeded);
    let status = fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("peak resident memory of the supervisor: {peak} KiB");
    assert!(peak < 24 << 10, "the supervisor took {peak} KiB");
    let path = deployment.directory.join(format!("{}.log", spec.attempt));
    let (kept, missing, last) = survey(&path);
    assert_eq!(kept + missing, (100 << 20) + (1 << 30) + 3);
    assert_eq!(missing, record.missing_bytes);
    assert!(last.ends_with(b"end"));
    assert!(fs::metadata(&path).unwrap().len() < (32 << 20) + (128 << 10));
}

/// A small filesystem of its own, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"]).arg(&at).output();
        let mounted = mounted.expect("this test needs the program mount");
        assert!(
            mounted.status.success(),
            "this test must be able to mount a tmpfs, to fill a disk: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_full_disk_fails_no_step_and_every_missing_byte_is_counted() {
    let root = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(root.path().join("disk"));
    let deployment = Deployment::start_in(root, &disk.0).await;
    let ballast = disk.0.join("ballast");
    let go_on = deployment.scratch("go-on");
    let script = format!(
        "yes 0123456789abcde | head -c 4194304; echo full >&2; while [ ! -e {} ]; do sleep 0.01; done; echo space again",
        go_on.display()
    );
    fs::write(&ballast, vec![1; 600 << 10]).unwrap();
    let spec = deployment.shell(&script);
    let identity = deployment.begin(&spec).await;
    until("all 4 MiB were written", || only_sleeps(&identity)).await;
    let log = fs::metadata(deployment.directory.join(format!("{}.log", spec.attempt))).unwrap().len();
    assert!((100 << 10..500 << 10).contains(&log), "what fits is there, and no more: {log}");
    fs::remove_file(&ballast).unwrap();
    fs::write(&go_on, "").unwrap();
    let record = deployment.end(spec.attempt).await;
    assert_eq!(record.result, StepOutcome::Succeeded);
    assert!(record.missing_bytes > 0);
    let records = deployment.records(spec.attempt);
    let missing: u64 = records.iter().filter_map(Record::missing).sum();
    let kept: u64 = records
        .iter()
        .filter(|record| record.missing().is_none())
        .map(|record| record.data.len() as u64)
        .sum();
    assert_eq!(missing, record.missing_bytes);
    assert_eq!(kept + missing, (4 << 20) + 5 + 12);
    assert!(deployment.said(spec.attempt, Stream::Stdout).ends_with("space again\n"));
    drop(deployment);
    drop(disk);
}

/// The shell is past its pipeline: its only child is a `sleep` of the loop.
fn only_sleeps(identity: &consign_agent::supervisor::AttemptIdentity) -> bool {
    let pid = crate::harness::pid(identity);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut children = children.split_ascii_whitespace().peekable();
    children.peek().is_some()
        && children.all(|child| {
            fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == "sleep")
        })
}
