//! Commit-confirm: a server that nobody confirmed in time is back on what was good, whoever is dead or cut off.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use consign_tests::{
    hosts::Host,
    scene::{Health, LONG, Production},
    wait::until,
};
use serde_json::Value;

/// How long a server waits to be confirmed.
const WINDOW: Duration = Duration::from_secs(20);
const UNIT: &str = "/etc/systemd/system/consign-agent.service";

/// web-1 has 1.0.0 and waits to be confirmed with 1.1.0, and the coordinator's check says that it is not good yet.
struct Confirming {
    scene: Production,
    health: Health,
    id: String,
    /// When the server returns by itself, in milliseconds of this machine's clock.
    deadline_ms: u64,
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

impl Confirming {
    fn boot() -> Self {
        let scene = Production::boot(&["web-1"]);
        scene.publish("1.0.0", "0.13.3", &["001-notes.sql"], "");
        scene.publish_to_confirm("1.1.0", "0.13.4", &format!("{}s", WINDOW.as_secs()));
        assert_eq!(scene.roll_out("1.0.0").code, 0);
        let health = Health::listen(scene.fleet.gateway());
        let url = health.url();
        let start = ["rollout", "start", "notes@1.1.0", "--env", "production", "--health-http", &url];
        let start = start.into_iter().chain(["--health-within", "15s"]);
        let id = scene.operator.json(&start.collect::<Vec<_>>())["id"].as_str().unwrap().to_owned();
        let shown = scene.until_newest("the server waits to be confirmed", |shown| {
            shown["deployments"][0]["state"] == "confirming"
        });
        let deadline_ms = shown["deployments"][0]["confirm_until_ms"].as_u64().unwrap();
        let this = Self { scene, health, id, deadline_ms };
        // The new one is what runs; what is good is the other one.
        assert_eq!(this.scene.serves(this.host()), "0.13.4");
        assert_eq!(this.good(), "1.0.0");
        let status = this.host().exec("consign-agent status");
        assert!(status.contains("waits to be confirmed until"), "{status}");
        let timers = this.timers();
        assert!(timers.contains("consign-confirm-") && timers.contains(".timer"), "{timers}");
        this
    }

    fn host(&self) -> &Host {
        &self.scene.fleet.hosts[0]
    }

    fn show(&self) -> Value {
        self.scene.operator.json(&["rollout", "show", &self.id])
    }

    /// What `server show` calls good.
    fn good(&self) -> String {
        let shown = self.scene.operator.json(&["server", "show", "web-1"]);
        shown["apps"][0]["good_version"].as_str().unwrap_or_default().to_owned()
    }

    fn timers(&self) -> String {
        self.host().exec("systemctl list-units --all --plain --no-legend 'consign-confirm-*.timer'")
    }

    fn current(&self) -> String {
        self.host().exec("readlink /srv/notes/current")
    }

    /// The agent of the server is dead, and systemd starts it under no circumstances.
    fn kill_agent_for_good(&self) {
        self.mask_agent();
        self.host().exec("systemctl kill -s KILL --kill-whom=main consign-agent");
        until("the agent is dead", LONG, || {
            let state = self.host().try_exec("pgrep -f '^/usr/local/bin/consign-agent run'");
            if state.code == 1 { Ok(()) } else { Err(state) }
        });
    }

    /// What `systemctl mask` does with a unit that is not in /etc already.
    fn mask_agent(&self) {
        self.host().exec(&format!("mv {UNIT} /root/ && ln -s /dev/null {UNIT} && systemctl daemon-reload"));
    }

    fn start_agent(&self) {
        self.host().exec(&format!("mv -f /root/consign-agent.service {UNIT} && systemctl daemon-reload"));
        self.host().exec("systemctl start consign-agent");
    }

    /// Waits until the server runs what was good, in all that can be seen on it; when that was.
    fn wait_returned(&self) -> u64 {
        let at = until("current is what was good", LONG, || {
            let current = self.current();
            if current.contains("1.0.0") { Ok(now_ms()) } else { Err(current) }
        });
        until("what was good answers", LONG, || {
            let version = self.scene.serves(self.host());
            if version == "0.13.3" { Ok(()) } else { Err(version) }
        });
        assert_eq!(self.host().exec("systemctl is-active notes"), "active\n");
        at
    }

    /// It was the deadline that brought it back, neither before nor long after it.
    fn assert_at_the_deadline(&self, returned_ms: u64, case: &str) {
        let late = i128::from(returned_ms) - i128::from(self.deadline_ms);
        println!("confirm: {case}: current switched back {late} ms after the deadline");
        assert!((0..10_000).contains(&late), "{late} ms after the deadline");
    }

    /// The coordinator knows that the server returned, and why.
    fn assert_told(&self, because: &str) {
        let shown = until("the coordinator has learned it", LONG, || {
            let shown = self.show();
            if shown["deployments"][0]["state"] == "returned" { Ok(shown) } else { Err(shown) }
        });
        let said = shown["deployments"][0]["because"].as_str().unwrap();
        assert!(said.contains(because), "{said}");
        let shown = until("the rollout has ended", LONG, || {
            let shown = self.show();
            if shown["ended_ms"].is_u64() { Ok(shown) } else { Err(shown) }
        });
        assert_eq!((&shown["state"], &shown["exit_code"]), (&"returned".into(), &4.into()), "{shown}");
        until("`server show` says what is good and current", LONG, || {
            let shown = self.scene.operator.json(&["server", "show", "web-1"]);
            let app = &shown["apps"][0];
            let settled = app["good_version"] == "1.0.0" && app["current"] == app["good"];
            if settled { Ok(()) } else { Err(shown) }
        });
        let units = self.host().exec("systemctl list-units --all --plain --no-legend 'consign-confirm-*'");
        assert!(!units.contains(".timer"), "a timer was left: {units}");
        assert!(!units.contains("failed"), "{units}");
    }

    /// The next version goes through: nothing is locked, and it is measured against what is good.
    fn assert_next_goes_through(&self) {
        self.scene.operator.wait_online("web-1");
        self.scene.publish("1.2.0", "0.13.4", &["001-notes.sql"], "");
        assert_eq!(self.scene.roll_out("1.2.0").code, 0);
        assert_eq!(self.scene.serves(self.host()), "0.13.4");
    }
}

#[test]
fn confirmed_in_time_nothing_returns() {
    let it = Confirming::boot();
    it.health.is_good_now();
    let shown = until("the rollout has ended", LONG, || {
        let shown = it.show();
        if shown["ended_ms"].is_u64() { Ok(shown) } else { Err(shown) }
    });
    assert!(now_ms() < it.deadline_ms, "too slow to mean anything");
    assert_eq!((&shown["state"], &shown["exit_code"]), (&"succeeded".into(), &0.into()), "{shown}");
    assert_eq!(it.timers(), "", "the timer is gone");
    until("the deadline has passed", LONG, || {
        if now_ms() > it.deadline_ms + 3000 { Ok(()) } else { Err(it.deadline_ms) }
    });
    assert!(it.current().contains("1.1.0"));
    assert_eq!(it.scene.serves(it.host()), "0.13.4");
    assert_eq!(it.good(), "1.1.0");
    // Also what the timer would have started finds nothing to do.
    let expired = it.host().exec("systemctl stop consign-agent && consign-agent confirm-expired");
    assert!(expired.contains("Nothing waits"), "{expired}");
    assert!(it.current().contains("1.1.0"));
}

#[test]
fn coordinator_dead_it_returns_at_the_deadline() {
    let mut it = Confirming::boot();
    it.scene.coordinator.kill();
    let returned = it.wait_returned();
    it.assert_at_the_deadline(returned, "coordinator dead");
    it.scene.coordinator.launch();
    it.assert_told("not confirmed");
    it.assert_next_goes_through();
}

#[test]
fn agent_dead_the_timer_returns_it() {
    let it = Confirming::boot();
    it.kill_agent_for_good();
    // Asked before its time it knows that the deadline has not passed: the boot is the one that the agent recorded.
    let early = it.host().exec("consign-agent confirm-expired");
    assert!(early.contains("Nothing waits"), "{early}");
    let returned = it.wait_returned();
    it.assert_at_the_deadline(returned, "agent dead");
    let journal = until("what the timer started has ended", LONG, || {
        let journal = it.host().exec("journalctl --no-pager -q -o cat -u 'consign-confirm-*'");
        if journal.contains("was not confirmed: returned") { Ok(journal) } else { Err(journal) }
    });
    println!("{journal}");
    // Nobody can have told the coordinator.
    assert_eq!(it.show()["deployments"][0]["state"], "confirming");
    it.start_agent();
    it.assert_told("not confirmed");
    it.assert_next_goes_through();
}

#[test]
fn rebooted_it_returns_at_boot_before_the_agent() {
    let mut it = Confirming::boot();
    let begun = now_ms();
    it.scene.fleet.host("web-1").reboot();
    let returned = it.wait_returned();
    println!("confirm: rebooted: back {} ms after the reboot began", returned - begun);
    it.assert_told("started anew");
    // Not the agent, which was started only when it was over.
    let journal = it.host().exec("journalctl --no-pager -q -b -o cat -u consign-confirm");
    assert!(journal.contains("was not confirmed: returned"), "{journal}");
    it.assert_next_goes_through();
}

#[test]
fn rebooted_with_its_agent_masked_it_returns_at_boot() {
    let mut it = Confirming::boot();
    it.kill_agent_for_good();
    it.scene.fleet.host("web-1").reboot();
    assert_eq!(it.host().exec("systemctl show -P LoadState consign-agent"), "masked\n");
    it.wait_returned();
    assert_eq!(it.host().try_exec("pgrep -f '^/usr/local/bin/consign-agent run'").code, 1, "no agent runs");
    let journal = it.host().exec("journalctl --no-pager -q -b -o cat -u consign-confirm");
    assert!(journal.contains("was not confirmed: returned"), "{journal}");
    it.start_agent();
    it.assert_told("started anew");
    it.assert_next_goes_through();
}

#[test]
fn link_cut_it_returns_and_says_so_when_the_link_is_back() {
    let it = Confirming::boot();
    it.host().cut_link();
    let returned = it.wait_returned();
    it.assert_at_the_deadline(returned, "link cut");
    assert_eq!(it.show()["deployments"][0]["state"], "confirming", "nobody can have told the coordinator");
    it.host().join_link();
    it.assert_told("not confirmed");
    it.assert_next_goes_through();
}
