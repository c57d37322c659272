//! A bridge, and the hosts on it.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use super::Host;

/// Hosts on one bridge; the test's own processes are reached at [`Fleet::gateway`].
#[derive(Debug)]
pub struct Fleet {
    bridge: Bridge,
    pub hosts: Vec<Host>,
    // Removed last: the hosts' overlays lie in it.
    directory: tempfile::TempDir,
}

#[derive(Debug)]
struct Bridge {
    name: String,
    /// `10.x.y`: the first three numbers of every address on it.
    network: [u8; 3],
}

impl Fleet {
    /// Boots `names` side by side and waits until systemd has started all of each.
    pub fn boot(names: &[&str]) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the tests on real hosts boot Debian systems and need root: run them with sudo"
        );
        let base = base_tree();
        // Overlays need an upper layer that is not itself an overlay; target/ is on a real filesystem.
        let directory = tempfile::tempdir_in(base.parent().unwrap()).unwrap();
        let bridge = Bridge::create();
        let mut fleet = Self { bridge, hosts: Vec::new(), directory };
        for (index, name) in names.iter().enumerate() {
            let host =
                Host::create(name, &fleet.bridge.name, fleet.address(index), &base, fleet.directory.path());
            fleet.hosts.push(host);
        }
        for host in &mut fleet.hosts {
            host.wait_until_up();
        }
        fleet
    }

    /// The address on the bridge that belongs to the test itself.
    pub fn gateway(&self) -> Ipv4Addr {
        let [a, b, c] = self.bridge.network;
        Ipv4Addr::new(a, b, c, 1)
    }

    pub fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.iter_mut().find(|host| host.name() == name).unwrap()
    }

    fn address(&self, index: usize) -> Ipv4Addr {
        let [a, b, c] = self.bridge.network;
        Ipv4Addr::new(a, b, c, 10 + u8::try_from(index).unwrap())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.hosts.clear();
    }
}

impl Bridge {
    /// A bridge of a name and network that nobody has. Two suites at once get two.
    fn create() -> Self {
        for number in 0..200u8 {
            let name = format!("consign{number}");
            let added = Command::new("ip").args(["link", "add", &name, "type", "bridge"]).output().unwrap();
            if !added.status.success() {
                let why = String::from_utf8_lossy(&added.stderr).into_owned();
                assert!(why.contains("File exists"), "cannot make a bridge: {why}");
                continue;
            }
            let network = [10, 213, number];
            run("ip", &["addr", "add", &format!("10.213.{number}.1/24"), "dev", &name]);
            run("ip", &["link", "set", &name, "up"]);
            return Self { name, network };
        }
        panic!("200 bridges named consign* exist: an earlier run was killed; remove them with `ip link del`");
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["link", "del", &self.name]).output());
    }
}

/// The tree that every host is an overlay of, built by `tests/hosts/base.sh` when it is not there yet.
fn base_tree() -> PathBuf {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts");
    let tree = target_directory().join("hosts").join("base");
    run("sh", &[scripts.join("packages.sh").to_str().unwrap()]);
    run("sh", &[scripts.join("base.sh").to_str().unwrap(), tree.to_str().unwrap()]);
    tree
}

/// Where this profile's binaries lie: `target/<profile>`, for a test in `deps` below it as for a program beside them.
pub fn profile_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let directory = program.parent().unwrap();
    if directory.ends_with("deps") { directory.parent().unwrap().to_owned() } else { directory.to_owned() }
}

/// Cargo's target directory.
pub fn target_directory() -> PathBuf {
    profile_directory().parent().unwrap().to_owned()
}

/// Runs a command that must succeed.
pub(super) fn run(program: &str, arguments: &[&str]) {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
