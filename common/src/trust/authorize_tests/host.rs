//! The server's own word, its privileges, its platform, and what this version executes of a plan.

use super::*;

fn step(kind: &str) -> String {
    format!(
        "app = \"shop\"\n[[step]]\nname = \"one\"\n{kind}\n[[step]]\nname = \"activate\"\nactivate = true\n"
    )
}

fn code(plan: &str, change: impl FnOnce(&mut World)) -> Result<(), &'static str> {
    let mut world = world();
    world.plan(plan);
    change(&mut world);
    world.ordered().map(drop).map_err(|refusal| refusal.code())
}

fn users(of: &'static [&'static str]) -> impl FnOnce(&mut World) {
    move |world| world.word.allowances[0].users = of.iter().map(|&user| user.to_owned()).collect()
}

fn without_root(world: &mut World) {
    world.privilege = Privilege::User("deploy".into());
    world.word.allowances[0].users.clear();
    world.word.allowances[0].units.clear();
}

#[test]
fn an_app_that_root_does_not_list_does_not_run() {
    assert_eq!(refused(|world| world.word.allowances.clear()), "app-not-allowed");
    assert_eq!(refused(|world| world.word.allowances[0].app = "blog".parse().unwrap()), "app-not-allowed");
}

#[test]
fn what_root_allows_one_app_is_not_allowed_to_another() {
    let lent = |world: &mut World| {
        let mut blog = world.word.allowances[0].clone();
        blog.app = "blog".parse().unwrap();
        world.word.allowances[0].users.clear();
        world.word.allowances.push(blog);
    };
    assert_eq!(refused(lent), "user-not-allowed");
    let split = |world: &mut World| {
        let second = Allowance { app: "shop".parse().unwrap(), users: vec!["shop".into()], units: vec![] };
        world.word.allowances[0].users.clear();
        world.word.allowances.push(second);
    };
    assert_eq!(code(PLAN, split), Ok(()), "several entries for one app add up");
}

#[test]
fn a_step_runs_as_users_that_root_lists() {
    let shell = step("shell = \"id\"\nuser = \"shop\"");
    assert_eq!(code(&shell, users(&["shop"])), Ok(()));
    assert_eq!(code(&shell, users(&["root", "shopping", "sho"])), Err("user-not-allowed"));
    assert_eq!(code(&shell, users(&[])), Err("user-not-allowed"));
}

#[test]
fn a_step_without_a_user_is_roots_and_needs_root_to_be_listed() {
    let run = step("run = [\"id\"]");
    assert_eq!(code(&run, users(&["shop"])), Err("user-not-allowed"));
    assert_eq!(code(&run, users(&["root"])), Ok(()));
}

#[test]
fn a_step_acts_on_units_that_root_lists() {
    let restart = step("systemd = { restart = \"sshd.service\" }");
    assert_eq!(code(&restart, |_| {}), Err("unit-not-allowed"));
    let listed = |world: &mut World| world.word.allowances[0].units.push("sshd.service".into());
    assert_eq!(code(&restart, listed), Ok(()));
}

#[test]
fn a_step_that_only_a_return_runs_is_checked_too() {
    let plan = step("run = [\"id\"]\nuser = \"root\"\non = [\"return\"]");
    assert_eq!(code(&plan, |_| {}), Err("user-not-allowed"));
}

#[test]
fn without_root_another_user_and_units_are_refused_by_name() {
    assert_eq!(code(&step("run = [\"id\"]"), without_root), Ok(()));
    assert_eq!(code(&step("run = [\"id\"]\nuser = \"deploy\""), without_root), Ok(()));
    assert_eq!(code(&step("run = [\"id\"]\nuser = \"shop\""), without_root), Err("needs-root"));
    assert_eq!(code(&step("systemd = { restart = \"shop.service\" }"), without_root), Err("needs-root"));
    let listed = |world: &mut World| world.privilege = Privilege::User("deploy".into());
    assert_eq!(code(PLAN, listed), Err("needs-root"), "also when root lists them");
    let unlisted = |world: &mut World| {
        without_root(world);
        world.word.allowances.clear();
    };
    assert_eq!(code(&step("run = [\"id\"]"), unlisted), Err("app-not-allowed"));
}

#[test]
fn an_artifact_for_another_platform_is_refused() {
    let platform = |name: &'static str| {
        code(PLAN, move |world| {
            world.manifest.platform = Some(name.parse().unwrap());
            world.publish(at(NOW.0));
        })
    };
    assert_eq!(platform("linux-x86_64"), Ok(()));
    assert_eq!(platform("linux-aarch64"), Err("wrong-platform"));
}

#[test]
fn a_plan_that_does_not_hold_or_is_another_apps_is_refused() {
    assert_eq!(code("app = \"shop\"\nunknown = 1\n", |_| {}), Err("plan-invalid"));
    assert_eq!(code(&PLAN.replace("\"shop\"\n[[", "\"blog\"\n[["), |_| {}), Err("plan-invalid"));
}
