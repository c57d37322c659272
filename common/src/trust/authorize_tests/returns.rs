//! The way back: pre-authorized, to what was good here, without anybody's key.

use super::*;

/// A server whose artifact before is the world's manifest, and an order to return to it.
fn returning() -> World {
    let mut world = world();
    world.memory.before = Some(world.installed(at(5000)));
    world.memory.highest = Some(at(9000));
    world.memory.succeeded = Some(at(9000));
    world.order.order = OrderKind::back(world.digest(), "rollback");
    world.statements.clear();
    world
}

fn refused(change: impl FnOnce(&mut World)) -> &'static str {
    let mut world = returning();
    world.ordered().unwrap();
    change(&mut world);
    world.code()
}

#[test]
fn a_return_needs_no_key_and_no_time() {
    let mut world = returning();
    world.now = UnixMs(u64::MAX);
    world.root.environments.clear();
    world.root.keys.clear();
    let work = world.ordered().unwrap();
    assert_eq!((work.digest, work.published, work.number), (world.digest(), at(5000), at(5000)));
    world.root.apps.clear();
    world.ordered().unwrap();
    world.memory.term = 100;
    assert_eq!(world.code(), "old-term");
    assert_eq!(world.resumed(), Ok(work));
}

#[test]
fn a_return_goes_to_the_artifact_before_and_nowhere_else() {
    assert_eq!(refused(|world| world.memory.before = None), "nothing-to-return-to");
    let elsewhere = |world: &mut World| {
        world.order.order = OrderKind::back(Sha256::of(b"x"), "");
    };
    assert_eq!(refused(elsewhere), "wrong-return");
    // The coordinator names another artifact, and sends it.
    let another = |world: &mut World| {
        world.manifest.version = "0.9".parse().unwrap();
        world.order.order = OrderKind::back(world.digest(), "");
    };
    assert_eq!(refused(another), "wrong-return");
    // It names the right one, and sends another.
    assert_eq!(refused(|world| world.manifest.version = "0.9".parse().unwrap()), "manifest-digest");
    // To what is good now is no way back.
    let good = |world: &mut World| {
        world.memory.good = world.memory.before.take();
    };
    assert_eq!(refused(good), "nothing-to-return-to");
    assert_eq!(refused(|world| world.order.app = "blog".parse().unwrap()), "malformed");
}

#[test]
fn a_return_never_goes_below_the_floor_or_to_what_is_revoked() {
    let floor = |world: &mut World| world.root.apps.values_mut().for_each(|app| app.floor = at(5001));
    assert_eq!(refused(floor), "below-floor");
    assert_eq!(refused(|world| world.root.revoked.push(world.digest())), "revoked");
}

#[test]
fn a_return_is_held_to_the_servers_own_word() {
    assert_eq!(refused(|world| world.word.allowances.clear()), "app-not-allowed");
    assert_eq!(refused(|world| world.privilege = Privilege::User("me".into())), "needs-root");
    assert_eq!(refused(|world| world.order.server = "web-2".parse().unwrap()), "wrong-server");
    assert_eq!(refused(|world| world.order.environment = "staging".parse().unwrap()), "wrong-environment");
    assert_eq!(refused(|world| world.root.coordinators.clear()), "coordinator-unknown");
}

#[test]
fn an_automatic_return_goes_to_the_good_artifact() {
    let mut world = returning();
    let code = |world: &World| {
        world.decide(Intent::AutomaticReturn).map(|work| work.digest).map_err(|refusal| refusal.code())
    };
    assert_eq!(code(&world), Err("nothing-to-return-to"));
    world.memory.good = world.memory.before.take();
    world.now = UnixMs(u64::MAX);
    world.root.apps.clear();
    assert_eq!(code(&world), Ok(world.digest()));
    world.root.revoked.push(world.digest());
    assert_eq!(code(&world), Err("revoked"));
    world.manifest.version = "0.9".parse().unwrap();
    assert_eq!(code(&world), Err("manifest-digest"));
}
