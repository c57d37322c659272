use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use consign_common::{
    artifact::{Entry, EntryKind, Manifest, Mode, Sink},
    digest::Sha256,
    plan::Plan,
    trust::Privilege,
};
use tempfile::TempDir;

use super::{AppDirectory, Drift, Form, StageError, Staging, is_whole, verify};

const PLAN: &str = r#"
app = "shop"
shared = ["config/.env"]
writable = ["tmp"]

[[step]]
name = "activate"
activate = true
"#;

fn file(path: &str, content: &str, mode: Mode) -> Entry {
    let kind = EntryKind::File { mode, size: content.len() as u64, sha256: Sha256::of(content.as_bytes()) };
    Entry { path: path.into(), kind }
}

fn manifest(version: &str) -> Manifest {
    Manifest {
        format: "consign-manifest-v1".into(),
        app: "shop".parse().unwrap(),
        version: version.parse().unwrap(),
        platform: None,
        plan: PLAN.into(),
        entries: vec![
            Entry { path: "bin".into(), kind: EntryKind::Dir },
            file("bin/shop", "#!/bin/sh\n", Mode::Executable),
            Entry { path: "latest".into(), kind: EntryKind::Link { target: "bin/shop".into() } },
            file("readme", "hello", Mode::Plain),
        ],
    }
}

struct Case {
    apps: TempDir,
    plan: Plan,
    user: Privilege,
}

mod hostile;

impl Case {
    fn new() -> Self {
        let apps = tempfile::tempdir().unwrap();
        fs::create_dir_all(apps.path().join("shop/shared/config")).unwrap();
        fs::write(apps.path().join("shop/shared/config/.env"), "secret").unwrap();
        let plan = Plan::parse(PLAN, "consign.toml").unwrap();
        Self { apps, plan, user: Privilege::User("me".into()) }
    }

    fn app(&self) -> AppDirectory {
        AppDirectory::open(self.apps.path(), &"shop".parse().unwrap()).unwrap()
    }

    fn form<'a>(&'a self, manifest: &'a Manifest) -> Form<'a> {
        let digest = Sha256::of(manifest.version.as_str().as_bytes());
        Form { digest, manifest, plan: &self.plan, privilege: &self.user }
    }

    fn stage(&self, version: &str) -> String {
        let (manifest, app) = (manifest(version), self.app());
        let form = self.form(&manifest);
        form.check_surroundings(&app).unwrap();
        form.check_space(&app).unwrap();
        let mut staging = Staging::create(&form, &app).unwrap();
        for (index, content) in [(1, "#!/bin/sh\n"), (3, "hello")] {
            staging.begin(&manifest.entries[index]).unwrap();
            staging.write(content.as_bytes()).unwrap();
            staging.end().unwrap();
        }
        staging.finish().unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_release_is_whole_read_only_and_linked_to_what_is_shared() {
    let case = Case::new();
    let name = case.stage("1.0.0");
    let release = case.app().release_path(&name);
    assert!(name.starts_with("1.0.0-"));
    assert_eq!((mode(&release), mode(&release.join("bin/shop"))), (0o555, 0o555));
    assert_eq!((mode(&release.join("readme")), mode(&release.join("tmp"))), (0o444, 0o755));
    assert_eq!(fs::read_to_string(release.join("config/.env")).unwrap(), "secret");
    assert_eq!(fs::read_to_string(release.join("latest")).unwrap(), "#!/bin/sh\n");
    let drift = verify(&case.app().open_release(&name).unwrap(), &manifest("1.0.0"), &case.plan).unwrap();
    assert_eq!(drift, []);
}

#[test]
fn a_staging_that_is_given_up_leaves_no_release() {
    let case = Case::new();
    let (manifest, app) = (manifest("1.0.0"), case.app());
    let form = case.form(&manifest);
    let mut staging = Staging::create(&form, &app).unwrap();
    staging.begin(&manifest.entries[3]).unwrap();
    staging.write(b"hel").unwrap();
    drop(staging);
    assert_eq!(form.existing(&app, &[]).unwrap(), None);
    app.clean().unwrap();
    assert_eq!(fs::read_dir(app.release_path("")).unwrap().count(), 0);
}

#[test]
fn what_is_shared_must_be_there() {
    let case = Case::new();
    fs::remove_file(case.apps.path().join("shop/shared/config/.env")).unwrap();
    let manifest = manifest("1.0.0");
    let error = case.form(&manifest).check_surroundings(&case.app()).unwrap_err();
    assert_eq!(error.code(), "shared-missing");
    assert!(error.to_string().contains("shop/shared/config/.env"), "{error}");
}

#[test]
fn more_than_the_disk_has_is_refused_before_anything_is_written() {
    let case = Case::new();
    let mut manifest = manifest("1.0.0");
    let kind = EntryKind::File { mode: Mode::Plain, size: 1 << 60, sha256: Sha256::of(b"") };
    manifest.entries.push(Entry { path: "zz".into(), kind });
    let error = case.form(&manifest).check_space(&case.app()).unwrap_err();
    assert!(matches!(error, StageError::DiskFull { needed, .. } if needed > 1 << 60), "{error}");
    assert_eq!(error.code(), "disk-full");
}

#[test]
fn drift_is_found_and_told() {
    let case = Case::new();
    let name = case.stage("1.0.0");
    let release = case.app().release_path(&name);
    fs::write(release.join("tmp/cache"), "the app's own").unwrap();
    for directory in ["", "bin"] {
        fs::set_permissions(release.join(directory), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(release.join("extra"), "").unwrap();
    let drift = || verify(&case.app().open_release(&name).unwrap(), &manifest("1.0.0"), &case.plan).unwrap();
    assert_eq!(drift(), [Drift::Added { path: "extra".into() }]);
    assert!(is_whole(&drift()));
    fs::set_permissions(release.join("readme"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(release.join("readme"), "hallo").unwrap();
    fs::remove_file(release.join("bin/shop")).unwrap();
    assert!(drift().contains(&Drift::Changed { path: "readme".into(), what: "content" }));
    assert!(drift().contains(&Drift::Missing { path: "bin/shop".into() }));
    assert!(!is_whole(&drift()));
}

#[test]
fn an_existing_release_is_taken_whole_removed_damaged_and_left_alone_in_use() {
    let case = Case::new();
    let name = case.stage("1.0.0");
    let (manifest, app) = (manifest("1.0.0"), case.app());
    let form = case.form(&manifest);
    assert_eq!(form.existing(&app, &[]).unwrap(), Some(name.clone()));
    let readme = app.release_path(&name).join("readme");
    fs::set_permissions(&readme, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&readme, "hallo").unwrap();
    assert_eq!(form.existing(&app, &[&name]).unwrap(), None);
    assert!(readme.exists());
    assert_eq!(case.stage("1.0.0"), format!("{name}.2"), "beside the damaged one that runs");
    assert_eq!(form.existing(&app, &[]).unwrap(), Some(format!("{name}.2")));
    assert!(!readme.exists());
}

#[test]
fn the_switch_is_one_rename_and_touches_only_our_own_link() {
    let case = Case::new();
    let (one, two) = (case.stage("1.0.0"), case.stage("2.0.0"));
    let app = case.app();
    assert_eq!(app.current().unwrap(), None);
    for release in [&one, &two, &one] {
        app.switch(release).unwrap();
        assert_eq!(app.current().unwrap().as_ref(), Some(release));
    }
    assert!(app.switch("9.9.9-000000000000").is_err(), "what is not there cannot run");
    assert_eq!(app.current().unwrap(), Some(one));
    let current = case.apps.path().join("shop/current");
    fs::remove_file(&current).unwrap();
    fs::create_dir(&current).unwrap();
    let error = app.switch(&two).unwrap_err();
    assert!(error.to_string().contains("is not a link"), "{error}");
}

#[test]
fn pruning_keeps_what_is_needed_and_what_is_not_ours() {
    let case = Case::new();
    let names: Vec<String> = ["1.0.0", "2.0.0", "3.0.0", "4.0.0"].map(|version| case.stage(version)).into();
    let app = case.app();
    for (age, name) in (1u64..).zip(names.iter().rev()) {
        let release = fs::File::open(app.release_path(name)).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(age * 100);
        release.set_times(fs::FileTimes::new().set_modified(then)).unwrap();
    }
    fs::create_dir(app.release_path("20240101120000")).unwrap();
    let removed = app.prune(2, &[&names[0]]).unwrap();
    assert_eq!(removed, [names[2].clone(), names[1].clone()]);
    assert!(app.release_path(&names[0]).exists() && app.release_path(&names[3]).exists());
    assert!(app.release_path("20240101120000").exists());
    // Before, current and good are all needed: none goes, however few are to be kept.
    assert!(app.prune(1, &[&names[0], &names[3]]).unwrap().is_empty());
}
