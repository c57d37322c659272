//! Artifacts that the suites deploy.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::hosts::target_directory;

/// Writes files into a directory; those with `#!` are executable.
pub fn write_tree(directory: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// `notes`: a web app on two consecutive releases of the published Python package bottle, with a systemd service of its
/// own (`tests/payload`).
#[derive(Debug)]
pub struct Notes {
    packages: PathBuf,
}

impl Notes {
    const PLAN: &str = r#"
app = "notes"
keep = 3
shared = ["data"]

[[step]]
name = "migrate"
shell = "for file in migrations/*; do echo applying $file; echo $file $CONSIGN_VERSION >> data/applied; done"
when = "changed('migrations/**')"
user = "notes"
"#;
    const REST: &str = r#"
[[step]]
name = "activate"
activate = true

[[step]]
name = "restart"
systemd = { restart = "notes.service" }

[[step]]
name = "healthy"
http = { url = "http://127.0.0.1:8080/healthz", status = 200, within = "15s" }
"#;

    pub fn fetch() -> Self {
        let packages = target_directory().join("hosts").join("bottle");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("payload/fetch.sh");
        let output = Command::new("sh").arg(script).arg(&packages).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { packages }
    }

    /// A source directory of the app on this release of bottle. `head` is plan text that comes before all steps, `between`
    /// what comes after `migrate`.
    pub fn source(
        &self,
        directory: &Path,
        bottle: &str,
        migrations: &[&str],
        (head, between): (&str, &str),
    ) -> PathBuf {
        let package = fs::read_to_string(self.packages.join(bottle).join("bottle.py")).unwrap();
        let plan = format!("{head}{}{between}{}", Self::PLAN, Self::REST);
        write_tree(
            directory,
            &[
                ("notes.py", include_str!("../../payload/notes.py")),
                ("vendor/bottle.py", &package),
                ("consign.toml", &plan),
            ],
        );
        for migration in migrations {
            write_tree(directory, &[(&format!("migrations/{migration}"), "alter table notes;\n")]);
        }
        directory.to_owned()
    }
}
