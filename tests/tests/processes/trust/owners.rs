//! Two of three owners sign, each on a machine of their own.

use consign_tests::wait::until;

use super::people::{Person, at_terminal, pin_of, public};
use crate::{
    bad_input::support::assert_says,
    scene::{ACTIVATE, Scene},
};

#[test]
fn two_of_three_owners_sign_and_an_agent_that_was_away_follows() {
    let mut scene = Scene::start(&["web-1"]);
    scene.agents[0].kill();
    let (bob, carol) = (Person::new(&scene, "bob"), Person::new(&scene, "carol"));
    let bobs = bob.generate("bob");
    // Carol has an SSH key, with a passphrase.
    let carols = carol.ssh_keygen("id", "correct horse");
    let phrase = carol.file("passphrase");
    std::fs::write(&phrase, "correct horse\n").unwrap();
    let draft = scene.directory.path().join("next.json");
    let draft = draft.to_str().unwrap();

    // Who has nothing pinned has nothing to compare a draft with; and the pin is compared.
    let add = [
        "trust",
        "add-key",
        &format!("root={}", public(&bobs)),
        &format!("root=carol={}", public(&carols)),
        "--threshold",
        "2",
    ];
    assert_says(
        &scene.operator.run(&add),
        1,
        &["these keys are not enough", "still 1 of bob, carol", "--draft"],
    );
    let drafted = scene.operator.ok(&[&add[..], &["--draft", draft]].concat());
    assert!(drafted.contains("root: owner (") && drafted.contains("→ 2 of owner ("), "{drafted}");
    let sign_as_bob = ["trust", "sign", draft, "--key", &bobs];
    assert_says(&bob.operator.run(&sign_as_bob), 1, &["no pinned trust root here", "consign trust init"]);
    let file = scene.operator.home().join("trust-root.json");
    let pin = pin_of(&scene.operator);
    let other = pin.replace(pin.as_bytes()[0] as char, if pin.starts_with('0') { "1" } else { "0" });
    let wrong = ["trust", "init", file.to_str().unwrap(), "--pin", &other];
    assert_says(&bob.operator.run(&wrong), 6, &["is not pinned"]);
    bob.pin(&scene);
    carol.pin(&scene);

    // Nobody is there to be asked; then somebody is, and says no; then yes.
    assert_says(&bob.operator.run(&sign_as_bob), 2, &["--yes"]);
    let no = at_terminal(&bob.operator, &sign_as_bob, "n\n");
    assert_says(&no, 1, &["what it changes of version 1", "+ key ", "sign trust root 2 with", "not signed"]);
    let yes = at_terminal(&bob.operator, &sign_as_bob, "y\n");
    assert_says(&yes, 0, &["owners of version 2: 2 of 2 signed (bob, owner)", "trust update --from"]);
    scene.operator.ok(&["trust", "update", "--from", draft]);
    // Handing it over twice changes nothing.
    scene.operator.ok(&["trust", "update", "--from", draft]);

    // From now on one is not enough, and it does not matter which two.
    let add = ["trust", "update", "--add-env", "production"];
    assert_says(&scene.operator.run(&add), 1, &["1 of 2 signed (owner)"]);
    scene.operator.ok(&[&add[..], &["--draft", draft]].concat());
    assert_says(&scene.operator.run(&["trust", "update", "--from", draft]), 1, &["not all have signed"]);
    // Carol's pinned copy is version 1: she follows the draft's chain.
    let wrong = scene.directory.path().join("wrong");
    std::fs::write(&wrong, "wrong horse\n").unwrap();
    let sign = |phrase: &str| {
        carol.operator.run(&["trust", "sign", draft, "--key", &carols, "--yes", "--passphrase-file", phrase])
    };
    assert_says(&sign(wrong.to_str().unwrap()), 1, &["does not open"]);
    assert_says(
        &sign(&phrase),
        0,
        &["of version 2", "+ environment production, publisher-only", "carol, owner"],
    );
    scene.operator.ok(&["trust", "update", "--from", draft]);

    // Bob drafts without a coordinator, for both others; the operator signs last, and that hands it over.
    bob.operator.run(&["trust", "sign", draft, "--key", &bobs, "--yes"]);
    let offline = bob.file("offline.json");
    let add = ["trust", "update", "--add-env", "pre-release", "--draft", &offline, "--key", &bobs];
    let drafted = bob.operator.run(&add);
    assert_says(&drafted, 0, &["drafted from the pinned version 2"]);
    // It follows version 2, and 3 is in force: nobody signs it.
    let stale = ["trust", "sign", &offline, "--yes"];
    assert_says(&scene.operator.run(&stale), 6, &["does not follow from your pinned copy"]);
    let fresh = scene.directory.path().join("bobs-copy.json");
    std::fs::copy(scene.operator.home().join("trust-root.json"), &fresh).unwrap();
    std::fs::remove_file(bob.operator.home().join("trust-root.json")).unwrap();
    bob.pin(&scene);
    assert_says(&bob.operator.run(&add), 0, &["drafted from the pinned version 3"]);
    assert_says(&scene.operator.run(&stale), 0, &["trust root 4 is in force"]);

    // The agent was away all the time. It takes every version in between, and works under the last.
    let shown = scene.operator.json(&["server", "show", "web-1"]);
    assert_eq!(shown["trust_root_version"], 1);
    scene.agents[0].launch();
    until("the agent has followed", std::time::Duration::from_secs(60), || {
        let shown = scene.operator.json(&["server", "show", "web-1"]);
        if shown["trust_root_version"] == 4 { Ok(()) } else { Err(shown) }
    });
    let kept = crate::bad_input::support::names(&scene.agents[0].state().join("trust-roots"));
    println!("{kept:?}");
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
}

#[test]
fn nobody_signs_what_they_may_not() {
    let scene = Scene::without_agents(&["app"], &["staging"]);
    let eve = Person::new(&scene, "eve");
    let eves = eve.generate("eve");
    let draft = scene.directory.path().join("next.json");
    let draft = draft.to_str().unwrap();
    assert_says(
        &scene.operator.run(&["trust", "update", "--add-env", "x", "--key", &eves]),
        1,
        &["is not a key of the root role", "owner ("],
    );
    // Without a key at hand a draft is only words.
    let keys = scene.operator.home().join("keys");
    std::fs::rename(&keys, keys.with_file_name("away")).unwrap();
    scene.operator.ok(&["trust", "update", "--add-env", "x", "--draft", draft]);
    assert_says(&scene.operator.run(&["trust", "update", "--from", draft]), 1, &["0 of 1 signed (nobody)"]);
    std::fs::rename(keys.with_file_name("away"), &keys).unwrap();
    assert_says(
        &scene.operator.run(&["trust", "sign", draft, "--key", &eves, "--yes"]),
        1,
        &["not a key of the root role"],
    );
    let ran = scene.operator.run(&["trust", "sign", draft, "--yes"]);
    assert_says(&ran, 0, &["+ environment x, publisher-only", "trust root 2 is in force"]);
}
