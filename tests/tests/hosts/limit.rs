//! systemd starts a unit only so often. What a version that crashes has used up of that is no reason to leave the server
//! without the one before.

use std::fs;

use consign_tests::scene::Production;

/// Two starts an hour, by itself.
const LIMIT: &str = "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n";

#[test]
fn a_version_that_crashes_again_and_again_goes_back_all_the_same() {
    let scene = Production::boot(&["web-1"]);
    let host = &scene.fleet.hosts[0];
    fs::create_dir_all(host.path("/etc/systemd/system/notes.service.d")).unwrap();
    fs::write(host.path("/etc/systemd/system/notes.service.d/limit.conf"), LIMIT).unwrap();
    host.exec("systemctl daemon-reload");
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        scene.publish(version, "0.13.3", &["001-notes.sql"], "");
        assert_eq!(
            scene.roll_out(version).code,
            0,
            "{}",
            host.exec("systemctl status notes --no-pager; true")
        );
    }
    let crash = [("notes.py", "raise SystemExit(1)\n")];
    scene.publish_with("1.3.0", "0.13.4", &["001-notes.sql"], "", &crash);
    assert_eq!(scene.roll_out("1.3.0").code, 4, "{}", host.exec("journalctl -u notes --no-pager -n 20"));
    assert!(
        host.exec("journalctl -u notes --no-pager").contains("repeated too quickly"),
        "it was not put to the test"
    );
    assert_eq!(scene.serves(host), "0.13.3");
    assert!(host.exec("readlink /srv/notes/current").contains("1.2.0"));
}
