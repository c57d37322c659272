//! One Debian system with systemd as its first process.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::fleet::run;
use crate::wait::until;

/// systemd-nspawn ends with this when the system inside asked for a reboot.
const REBOOT: i32 = 133;

#[derive(Debug)]
pub struct Host {
    name: String,
    machine: String,
    bridge: String,
    address: Ipv4Addr,
    root: PathBuf,
    cgroups: Vec<PathBuf>,
    nspawn: Option<Child>,
    leader: u32,
}

/// What a command on a host said.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Host {
    /// Makes the host's tree and boots it; [`Host::wait_until_up`] waits for the end of that.
    pub(super) fn create(name: &str, bridge: &str, address: Ipv4Addr, base: &Path, directory: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // At most 11 characters, so that nspawn's interface name vb-<machine> is not cut.
        let machine = format!("c{}x{}", std::process::id() % 100_000, NEXT.fetch_add(1, Ordering::Relaxed));
        let root = directory.join(name).join("root");
        for part in ["root", "upper", "work"] {
            fs::create_dir_all(directory.join(name).join(part)).unwrap();
        }
        let (upper, work) = (directory.join(name).join("upper"), directory.join(name).join("work"));
        let layers =
            format!("lowerdir={},upperdir={},workdir={}", base.display(), upper.display(), work.display());
        run("mount", &["-t", "overlay", "overlay", "-o", &layers, root.to_str().unwrap()]);

        let network =
            format!("[Match]\nName=host0\n[Network]\nAddress={address}/24\nLinkLocalAddressing=no\n");
        fs::create_dir_all(root.join("etc/systemd/network")).unwrap();
        fs::write(root.join("etc/systemd/network/10-host0.network"), network).unwrap();
        fs::write(root.join("etc/hostname"), format!("{name}\n")).unwrap();

        let cgroups = create_cgroups(&machine);
        let mut host = Self {
            name: name.into(),
            machine,
            bridge: bridge.into(),
            address,
            root,
            cgroups,
            nspawn: None,
            leader: 0,
        };
        host.start();
        host
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The host's filesystem as the test sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Runs a shell command on the host and tells how it ended.
    pub fn try_exec(&self, command: &str) -> Output {
        let output = self.command(&["sh", "-c", command]).output().unwrap();
        Output {
            code: output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a shell command on the host that must succeed; what it printed.
    pub fn exec(&self, command: &str) -> String {
        let output = self.try_exec(command);
        assert_eq!(output.code, 0, "{}: {command}\n{}{}", self.name, output.stdout, output.stderr);
        output.stdout
    }

    /// A command on the host, to be spawned by the caller.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader.to_string(), "-a", "--"]).args(arguments);
        command
            .env_clear()
            .env("HOME", "/root")
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Copies a file or directory onto the host.
    pub fn copy(&self, from: &Path, inside: &str) {
        let to = self.path(inside);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run("cp", &["-a", "--no-preserve=ownership", from.to_str().unwrap(), to.to_str().unwrap()]);
    }

    /// Nothing goes in or out until [`Host::join_link`].
    pub fn cut_link(&self) {
        run("ip", &["link", "set", &format!("vb-{}", self.machine), "down"]);
    }

    pub fn join_link(&self) {
        run("ip", &["link", "set", &format!("vb-{}", self.machine), "up"]);
    }

    /// What goes in or out vanishes without a word until [`Host::join_silently`]: the link stays up at both ends, and no
    /// connection is refused or reset. The bridge drops everything at the host's port.
    pub fn cut_silently(&self) {
        self.set_port_state("disabled");
    }

    pub fn join_silently(&self) {
        self.set_port_state("forwarding");
    }

    fn set_port_state(&self, state: &str) {
        run("bridge", &["link", "set", "dev", &format!("vb-{}", self.machine), "state", state]);
    }

    pub fn boot_id(&self) -> String {
        self.exec("cat /proc/sys/kernel/random/boot_id; cat /proc/1/stat | cut -d' ' -f22").replace('\n', " ")
    }

    /// Asks for a reboot, waits for the system to go down, and boots it again.
    pub fn reboot(&mut self) {
        drop(self.try_exec("systemctl --no-block reboot"));
        let mut nspawn = self.nspawn.take().unwrap();
        let status = until("the host goes down for its reboot", Duration::from_secs(120), || {
            match nspawn.try_wait() {
                Ok(Some(status)) => Ok(status),
                other => Err(format!("{other:?}")),
            }
        });
        assert_eq!(status.code(), Some(REBOOT), "{}: not a reboot", self.name);
        self.start();
        self.wait_until_up();
    }

    /// Takes the power away: every process of the host ends at once. [`Host::power_on`] boots it again.
    pub fn power_off(&mut self) {
        self.kill();
    }

    pub fn power_on(&mut self) {
        self.start();
        self.wait_until_up();
    }

    fn start(&mut self) {
        // Into the host's own cgroups first, or the hosts' systemds fight over /system.slice.
        let enter: String =
            self.cgroups.iter().map(|path| format!("echo $$ > {}/cgroup.procs; ", path.display())).collect();
        let log = fs::File::create(self.root.with_file_name("console.log")).unwrap();
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{enter} exec \"$@\""))
            .args(["sh", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"])
            .args(["--console=pipe", "--link-journal=no", "--timezone=off", "--resolv-conf=off"])
            .arg(format!("--directory={}", self.root.display()))
            .arg(format!("--machine={}", self.machine))
            .arg(format!("--network-bridge={}", self.bridge))
            // Pure cgroup v2, as on users' servers.
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nspawn = Some(child);
    }

    pub(super) fn wait_until_up(&mut self) {
        let nspawn = self.nspawn.as_ref().unwrap().id();
        self.leader = until("the host's first process", Duration::from_secs(60), || first_process(nspawn));
        until("the host has booted", Duration::from_secs(120), || {
            let state = self.try_exec("systemctl is-system-running");
            // `degraded`: some unit that a container cannot have. The tests look at their own units themselves.
            match state.stdout.trim() {
                "running" | "degraded" => Ok(()),
                _ => Err(format!("{state:?}\n{}", self.console())),
            }
        });
    }

    /// What the host wrote to its console.
    pub fn console(&self) -> String {
        fs::read(self.root.with_file_name("console.log"))
            .map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn kill(&mut self) {
        if let Some(mut nspawn) = self.nspawn.take() {
            // The host's processes end with their PID namespace when its first one is killed.
            if self.leader != 0 {
                drop(Command::new("kill").args(["-KILL", &self.leader.to_string()]).output());
            }
            let ended = (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(25));
                matches!(nspawn.try_wait(), Ok(Some(_)))
            });
            if !ended {
                drop(nspawn.kill());
                drop(nspawn.wait());
            }
        }
        self.leader = 0;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader != 0 {
            let journal = self.try_exec("journalctl --no-pager -q -n 60 2>/dev/null");
            eprintln!("---- last lines of {}'s journal\n{}", self.name, journal.stdout);
        }
        self.kill();
        drop(Command::new("umount").arg("-l").arg(&self.root).output());
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
    }
}

/// nspawn's child that is the host's systemd.
fn first_process(nspawn: u32) -> Result<u32, String> {
    let children =
        fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).map_err(|e| e.to_string())?;
    children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .find(|pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "systemd")
        })
        .ok_or(format!("children: {children}"))
}

/// A cgroup of the host's own in every hierarchy that this machine has.
fn create_cgroups(machine: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut cgroups = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if kind != "cgroup" && kind != "cgroup2" {
            continue;
        }
        let path = Path::new(point).join(machine);
        fs::create_dir_all(&path).unwrap();
        // A new cpuset takes no process before it has CPUs and memory nodes.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(Path::new(point).join(file)) {
                drop(fs::write(path.join(file), value));
            }
        }
        cgroups.push(path);
    }
    cgroups
}

/// Cgroups go from the leaves up; what still has a process stays, and is said.
fn remove_cgroup(path: &Path) {
    let Ok(children) = fs::read_dir(path) else { return };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&child.path());
        }
    }
    for _ in 0..40 {
        if fs::remove_dir(path).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    eprintln!("cannot remove the cgroup {}", path.display());
}
