//! The coordinator on a server of its own, installed by its script, which can be run twice.

use std::path::Path;

use consign_tests::{
    hosts::Fleet,
    scene::{LONG, Operator, binary},
    wait::until,
};

#[test]
fn the_coordinator_is_installed_upgraded_and_restarted() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = Fleet::boot(&["deploy-1"]);
    let host = &fleet.hosts[0];
    let mut operator = Operator::init(&directory.path().join("operator"), &["shop"], &["staging"]);
    operator.at(&format!("{}:7443", host.address()));
    host.copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy"), "/root/deploy");
    host.copy(&binary("consign"), "/root/deploy/consign");
    host.copy(&operator.home().join("coordinator.bundle"), "/root/coordinator.bundle");

    // Without the bundle it says what is missing, and starts nothing.
    let waiting = host.exec("/root/deploy/install-coordinator.sh");
    assert!(waiting.contains("consign init"), "{waiting}");
    assert_ne!(host.try_exec("systemctl is-active consign").code, 0);

    let installed = host.exec("/root/deploy/install-coordinator.sh --bundle /root/coordinator.bundle");
    assert!(installed.contains("installed and running"), "{installed}");
    assert_eq!(operator.json(&["status"])["role"], "admin");
    assert_eq!(host.exec("stat -c '%U %a' /var/lib/consign"), "consign 700\n");
    assert_eq!(host.exec("systemctl show -P User consign"), "consign\n");

    let pid = host.exec("systemctl show -P MainPID consign");
    let again = host.exec("/root/deploy/install-coordinator.sh");
    assert!(again.contains("nothing changed"), "{again}");
    assert_eq!(host.exec("systemctl show -P MainPID consign"), pid);

    // Its own machine needs no profile: the unix socket knows root.
    let local =
        host.exec("/usr/local/bin/consign --socket /var/lib/consign/consign.sock status --output json");
    assert!(local.contains("\"admin\""), "{local}");

    // Killed, it comes back, also when the bundle has been deleted as it advises.
    host.exec("rm -f /var/lib/consign/coordinator.bundle && systemctl kill -s KILL consign");
    until("systemd has started it again", LONG, || {
        let status = operator.run(&["status"]);
        if status.code == 0 { Ok(()) } else { Err(status) }
    });
    host.exec("systemctl restart consign");
    operator.ok(&["status"]);

    // The sandbox is not weaker than when it was measured: 1.3 of 10.
    host.exec("systemd-analyze security --no-pager --threshold=20 consign.service");
}
