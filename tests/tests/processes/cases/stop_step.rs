//! A version whose stop step always fails poisons nothing: what comes after it deploys, and its script never runs then.

use super::support::{current, effects, newest};
use crate::scene::{ACTIVATE, Scene};

/// Stops on the way back, as this version thinks it has to be done, and never manages to.
fn plan(check: &str) -> String {
    format!(
        "[[step]]\nname = \"stop\"\non = [\"return\"]\n\
         shell = \"echo stop $CONSIGN_VERSION >> ../../effects; exit 1\"\n{ACTIVATE}\
         [[step]]\nname = \"start\"\nshell = \"echo start $CONSIGN_VERSION >> ../../effects; {check}\"\n"
    )
}

#[test]
fn t6_after_a_version_whose_stop_step_always_fails_the_next_one_deploys() {
    let scene = Scene::start(&["web-1"]);
    let agent = &scene.agents[0];
    let mut expected = Vec::new();
    for version in ["1.0.0", "1.1.0"] {
        scene.publish(version, &plan("true"), &[]);
        assert_eq!(scene.roll_out(version).code, 0);
        expected.push(format!("start {version}"));
        assert_eq!(effects(agent), expected, "nothing of another version ran");
    }

    // The way back runs the plan of the version that it goes to, and that one cannot stop: said, and stopped there.
    scene.publish("1.2.0", &plan("false"), &[]);
    let failed = scene.roll_out("1.2.0");
    assert_eq!(failed.code, 3, "{}{}", failed.stdout, failed.stderr);
    assert!(failed.stdout.contains("the return failed too"), "{}", failed.stdout);
    expected.extend(["start 1.2.0".to_owned(), "stop 1.1.0".to_owned()]);
    assert_eq!(effects(agent), expected);

    // Fix forward, without anybody's hand.
    scene.publish("1.3.0", &plan("true"), &[]);
    let next = scene.roll_out("1.3.0");
    assert_eq!(next.code, 0, "{}{}", next.stdout, next.stderr);
    expected.push("start 1.3.0".to_owned());
    assert_eq!(effects(agent), expected, "no script of what was there before ran");
    assert_eq!(current(agent), "1.3.0");

    // The same after an operator's rollback that could not stop it.
    let rollback = ["rollout", "rollback", "app", "--env", "staging", "--reason", "prices", "--follow"];
    let back = scene.operator.run(&rollback);
    assert_eq!(back.code, 3, "{}{}", back.stdout, back.stderr);
    expected.push("stop 1.1.0".to_owned());
    assert_eq!(effects(agent), expected);
    scene.publish("1.4.0", &plan("true"), &[]);
    assert_eq!(scene.roll_out("1.4.0").code, 0);
    expected.push("start 1.4.0".to_owned());
    assert_eq!(effects(agent), expected);

    // And where it fails as the first step of its own deployment.
    let own = "[[step]]\nname = \"stop\"\nshell = \"echo stop $CONSIGN_VERSION >> ../../effects; exit 1\"\n";
    scene.publish("1.5.0", &format!("{own}{}", plan("true").replace("\"stop\"", "\"stop_again\"")), &[]);
    assert_eq!(scene.roll_out("1.5.0").code, 3);
    assert_eq!(newest(&scene)["deployments"][0]["state"], "failed");
    expected.push("stop 1.5.0".to_owned());
    scene.publish("1.6.0", &plan("true"), &[]);
    assert_eq!(scene.roll_out("1.6.0").code, 0);
    expected.push("start 1.6.0".to_owned());
    assert_eq!(effects(agent), expected);
    assert_eq!(current(agent), "1.6.0");
}
