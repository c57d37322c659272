//! Archives as the tools that people use write them. A tool that is missing fails the test: a format that nobody
//! produced was not tested.

use std::process::Command;

use super::*;

fn run(package: &str, program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}; install the Debian package {package}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The app in `app/`, and the artifact that a plain directory gives.
fn world() -> (tempfile::TempDir, Manifest) {
    let directory = tempfile::tempdir().unwrap();
    app(&directory.path().join("app"), &APP);
    let deep = directory.path().join("app").join("d/".repeat(20) + &"long-name-".repeat(12));
    fs::create_dir_all(deep.parent().unwrap()).unwrap();
    fs::write(deep, "deep").unwrap();
    fs::write(directory.path().join("app/caf\u{e9}.txt"), "x").unwrap();
    fs::write(directory.path().join("app/empty"), "").unwrap();
    fs::hard_link(directory.path().join("app/lib.js"), directory.path().join("app/lib-again.js")).unwrap();
    let manifest = from_directory(&directory.path().join("app")).unwrap().manifest;
    (directory, manifest)
}

fn archived(directory: &Path, strip: usize) -> Manifest {
    from_archive(&fs::read(directory.join("out.tar.gz")).unwrap(), strip).unwrap().manifest
}

#[test]
fn gnu_tar_in_each_of_its_formats() {
    let (directory, expected) = world();
    for format in ["gnu", "pax", "posix"] {
        let format = format!("--format={format}");
        run("tar", "tar", &[&format, "-czf", "out.tar.gz", "-C", "app", "."], directory.path());
        assert_eq!(archived(directory.path(), 0), expected, "{format}");
        run("tar", "tar", &[&format, "-czf", "out.tar.gz", "app"], directory.path());
        assert_eq!(archived(directory.path(), 1), expected, "{format}");
    }
}

#[test]
fn python_tarfile_in_each_of_its_formats() {
    let (directory, expected) = world();
    for format in ["GNU_FORMAT", "PAX_FORMAT"] {
        let script = format!(
            "import tarfile\nwith tarfile.open('out.tar.gz', 'w:gz', format=tarfile.{format}) as t: t.add('app', 'app-1.0')"
        );
        run("python3", "python3", &["-c", &script], directory.path());
        assert_eq!(archived(directory.path(), 1), expected, "{format}");
    }
}

#[test]
fn git_archive() {
    let (directory, expected) = world();
    let app = directory.path().join("app");
    run("git", "git", &["init", "-q"], &app);
    run("git", "git", &["add", "-A"], &app);
    let commit = ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "x"];
    run("git", "git", &commit, &app);
    let archive = ["archive", "--format=tar.gz", "--prefix=app-1.0/", "-o", "../out.tar.gz", "HEAD"];
    run("git", "git", &archive, &app);
    assert_eq!(archived(directory.path(), 1), expected);
}

#[test]
fn npm_pack() {
    let directory = tempfile::tempdir().unwrap();
    let package = r#"{"name":"shop","version":"1.2.0","bin":{"shop":"bin/start"}}"#;
    // npm leaves links out, so there is none here.
    app(directory.path(), &["consign.toml", "bin/start", "lib/a/index.js", "lib.js"]);
    fs::write(directory.path().join("package.json"), package).unwrap();
    let expected = from_directory(directory.path()).unwrap().manifest;
    run("npm", "npm", &["pack", "--silent", "--offline", "--ignore-scripts"], directory.path());
    let packed = fs::read(directory.path().join("shop-1.2.0.tgz")).unwrap();
    assert_eq!(from_archive(&packed, 1).unwrap().manifest, expected);
}
