//! The suite on real hosts.

#[test]
fn hosts_boot_reboot_and_lose_power() {
    let mut fleet = consign_tests::hosts::Fleet::boot(&["web-1"]);
    let host = fleet.host("web-1");
    assert_eq!(host.exec("systemd-run --wait --pipe -q echo hello"), "hello\n");
    let before = host.boot_id();
    host.reboot();
    let after = host.boot_id();
    assert_ne!(before, after);
    host.power_off();
    host.power_on();
    assert_ne!(after, host.boot_id());
}
