//! What conditions may ask about this server.

use std::{fs, thread};

use consign_common::plan::HostFacts;

/// Looked up once, when the agent starts.
pub fn host_facts() -> HostFacts {
    HostFacts {
        os: os_id(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        arch: std::env::consts::ARCH.to_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpus: thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        memory: {
            let system = rustix::system::sysinfo();
            system.totalram.saturating_mul(u64::from(system.mem_unit))
        },
    }
}

/// The `ID` of os-release; "linux" where it says none, as its manual has it.
fn os_id(text: &str) -> String {
    let id = text.lines().find_map(|line| line.strip_prefix("ID="));
    id.map(|id| id.trim_matches(['"', '\'']).to_owned()).unwrap_or_else(|| "linux".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_id_is_read() {
        assert_eq!(os_id("PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n"), "debian");
        assert_eq!(os_id("ID=\"rocky\"\n"), "rocky");
        assert_eq!(os_id(""), "linux");
        let facts = host_facts();
        assert!(facts.cpus > 0 && facts.memory > 1 << 20, "{facts:?}");
    }
}
