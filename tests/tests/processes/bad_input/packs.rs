//! A disk of the coordinator's that gives back other bytes than were published.

use super::support::{assert_runs, assert_says, flip_byte};
use crate::scene::{ACTIVATE, Scene};

/// Compressible by nobody: the flipped byte is one of the file's.
fn noise() -> String {
    let mut state: u64 = 88_172_645_463_325_252;
    let mut text = String::new();
    while text.len() < 100_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}

#[test]
fn a_flipped_byte_in_a_pack_or_manifest_is_refused_and_forgotten() {
    let scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
    scene.publish("1.1.0", ACTIVATE, &[("noise", &noise())]);
    let shown = scene.operator.json(&["artifact", "show", "app@1.1.0"]);
    let artifact = scene.coordinator.state().join("artifacts").join(shown["digest"].as_str().unwrap());
    let pack = artifact.join("pack.full");
    let length = usize::try_from(std::fs::metadata(&pack).unwrap().len()).unwrap();
    // Its head, its middle, its end.
    for at in [0, length / 2, length - 1] {
        flip_byte(&pack, at);
        let ran = scene.roll_out("1.1.0");
        assert_says(&ran, 3, &["web-1", "pack"]);
        assert_runs(&scene.agents[0], Some("1.0.0"));
        assert!(scene.agents[0].log().contains("a pack is fetched again"), "{}", scene.agents[0].log());
        flip_byte(&pack, at);
    }
    let manifest = artifact.join("manifest.json");
    let length = usize::try_from(std::fs::metadata(&manifest).unwrap().len()).unwrap();
    flip_byte(&manifest, length / 2);
    let ran = scene.roll_out("1.1.0");
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("manifest") || ran.stdout.contains("manifest"), "{ran:?}");
    assert_runs(&scene.agents[0], Some("1.0.0"));
    flip_byte(&manifest, length / 2);

    assert_says(&scene.roll_out("1.1.0"), 0, &[]);
}
