//! A local user, who owns what the plan calls `writable` and all of `shared/`, against the agent.

use std::os::unix::fs::{chown, symlink};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::*;

/// Deeper than any path can name, and than a thread's stack or its files would bear.
const DEEP: usize = 5_000;
/// An account that is not the one which runs the tests.
const STRANGER: u32 = 65_534;

fn nest(directory: &Path, depth: usize) {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut here = openat(CWD, directory, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = openat(&here, "d", flags, Mode::empty()).unwrap();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn refusal(case: &Case) -> Option<&'static str> {
    AppDirectory::open(case.apps.path(), &"shop".parse().unwrap()).err().map(|error| error.code())
}

#[test]
fn a_tree_without_end_in_a_writable_path_stops_neither_a_return_nor_pruning() {
    let case = Case::new();
    let name = case.stage("1.0.0");
    let app = case.app();
    nest(&app.release_path(&name).join("tmp"), DEEP);
    let drift = verify(&app.open_release(&name).unwrap(), &manifest("1.0.0"), &case.plan).unwrap();
    assert_eq!(drift, []);
    app.remove(&name).unwrap();
    assert_eq!(fs::read_dir(case.apps.path().join("shop/releases")).unwrap().count(), 0);
}

#[test]
fn removing_a_release_follows_no_link_out_of_it() {
    let case = Case::new();
    let name = case.stage("1.0.0");
    let outside = tempfile::tempdir().unwrap();
    let treasure = outside.path().join("treasure");
    fs::write(&treasure, "gold").unwrap();
    fs::set_permissions(&treasure, PermissionsExt::from_mode(0o640)).unwrap();
    fs::set_permissions(outside.path(), PermissionsExt::from_mode(0o750)).unwrap();
    let own = case.app().release_path(&name).join("tmp");
    symlink(outside.path(), own.join("directory")).unwrap();
    symlink(&treasure, own.join("file")).unwrap();
    fs::hard_link(&treasure, own.join("same")).unwrap();
    fs::create_dir_all(own.join("below/.0")).unwrap();
    symlink(outside.path(), own.join("below/link")).unwrap();
    case.app().remove(&name).unwrap();
    assert_eq!(fs::read_to_string(&treasure).unwrap(), "gold");
    assert_eq!((mode(&treasure), mode(outside.path())), (0o640, 0o750));
}

#[test]
fn what_is_being_staged_is_closed_to_everybody_else() {
    let case = Case::new();
    let (manifest, app) = (manifest("1.0.0"), case.app());
    let form = case.form(&manifest);
    let staging = Staging::create(&form, &app).unwrap();
    let directory = fs::read_dir(case.apps.path().join("shop/releases")).unwrap().next().unwrap().unwrap();
    assert!(directory.file_name().to_str().unwrap().starts_with(".staging-"));
    assert_eq!(mode(&directory.path()), 0o700);
    drop(staging);
}

#[test]
fn a_directory_that_others_can_write_to_is_not_used() {
    let case = Case::new();
    let root = case.apps.path().join("shop");
    let releases = root.join("releases");
    drop(case.app());
    for path in [&root, &releases] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(refusal(&case), Some("open-to-others"), "{path:?}");
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(refusal(&case), None);
    }
    // What the app writes lies here, and is its own.
    fs::set_permissions(root.join("shared"), PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(refusal(&case), None);
}

#[test]
fn a_directory_of_the_apps_user_is_not_used_by_root() {
    if !is_root() {
        return;
    }
    let case = Case::new();
    let root = case.apps.path().join("shop");
    drop(case.app());
    for path in [root.clone(), root.join("releases")] {
        chown(&path, Some(STRANGER), None).unwrap();
        assert_eq!(refusal(&case), Some("open-to-others"), "{path:?}");
        chown(&path, Some(0), None).unwrap();
    }
    fs::set_permissions(&root, PermissionsExt::from_mode(0o775)).unwrap();
    assert_eq!(refusal(&case), Some("open-to-others"), "a group");
}

#[test]
fn releases_that_are_a_link_into_what_the_app_owns_are_not_used() {
    if !is_root() {
        return;
    }
    let case = Case::new();
    let root = case.apps.path().join("shop");
    fs::create_dir(root.join("shared/planted")).unwrap();
    chown(root.join("shared/planted"), Some(STRANGER), None).unwrap();
    symlink("shared/planted", root.join("releases")).unwrap();
    assert_eq!(refusal(&case), Some("open-to-others"));
    fs::remove_file(root.join("releases")).unwrap();
    symlink("/etc", root.join("releases")).unwrap();
    assert!(refusal(&case).is_some(), "a link out of the app's directory");
}

#[test]
fn a_release_belongs_to_root_and_only_its_writable_paths_to_the_app() {
    use std::os::unix::fs::MetadataExt;
    if !is_root() {
        return;
    }
    let mut case = Case::new();
    case.user = Privilege::Root;
    let plan = PLAN.replace("activate = true", "run = [\"true\"]\nuser = \"nobody\"");
    case.plan =
        Plan::parse(&format!("{plan}\n[[step]]\nname = \"on\"\nactivate = true\n"), "consign.toml").unwrap();
    let name = case.stage("1.0.0");
    let release = case.app().release_path(&name);
    let owner = |path: &str| fs::symlink_metadata(release.join(path)).unwrap().uid();
    assert_eq!(owner("tmp"), STRANGER);
    for path in ["", "bin", "bin/shop", "readme", "latest", "config", "config/.env"] {
        assert_eq!(owner(path), 0, "{path}");
    }
    assert_eq!((mode(&release), mode(&release.join("bin/shop"))), (0o755, 0o755));
}
