//! A release build has no crash points: neither the code nor the names.

use std::{env, ffi::OsString, fs, path::Path, process::Command};

const NAME: &str = "a-point-that-no-release-may-name";
const CONTROL: &str = "a-text-that-is-there-to-be-found";

#[test]
fn a_release_build_has_nothing_of_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (directory.path().join("main.rs"), directory.path().join("program"));
    let module = root.join("src/crash.rs");
    let text = format!(
        "#[path = {module:?}]\nmod crash;\nfn main() {{\n    crash::point({NAME:?});\n    println!(\"{{}}\", std::hint::black_box({CONTROL:?}));\n}}\n"
    );
    fs::write(&source, text).unwrap();
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let output = Command::new(rustc)
        .args(["--edition", "2024", "-O", "-C", "debug-assertions=off", "-o"])
        .args([&program, &source])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let program = fs::read(program).unwrap();
    let holds = |text: &str| program.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(CONTROL), "the search finds what is there");
    for text in [NAME, "CONSIGN_CRASH"] {
        assert!(!holds(text), "{text} is in a release build");
    }
    let manifest = fs::read_to_string(root.join("../Cargo.toml")).unwrap();
    assert!(!manifest.contains("debug-assertions"), "the release profile is as cargo has it: without them");
}
