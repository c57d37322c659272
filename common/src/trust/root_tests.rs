//! Which trust roots are taken, and which succeed one another.

use super::*;
use crate::trust::{STATEMENT_TYPE, SigningKey};

pub(super) struct Owned {
    pub(super) key: SigningKey,
    owner: &'static str,
}

pub(super) fn owned(owner: &'static str) -> Owned {
    Owned { key: SigningKey::generate().unwrap(), owner }
}

pub(super) fn role(threshold: u32, of: &[&Owned]) -> RoleKeys {
    RoleKeys { keys: of.iter().map(|owned| owned.key.public().id()).collect(), threshold }
}

/// Version `version`, all of whose roles are `of` with this threshold.
pub(super) fn root(version: u64, threshold: u32, of: &[&Owned]) -> TrustRoot {
    let key = |owned: &&Owned| {
        let public = owned.key.public();
        let key =
            Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: owned.owner.parse().unwrap() };
        (public.id(), key)
    };
    let rule = GateRule {
        predicate: "consign:approval/v1".into(),
        role: "approvers".parse().unwrap(),
        threshold,
        condition: Some("predicate.reason != ''".into()),
    };
    let publishers = AppTrust {
        publishers: role(threshold, of),
        epoch: 1,
        floor: OrderingNumber::default(),
        config: None,
    };
    let gate =
        Gate::Statements { require: vec![rule.clone()], rearm: vec![rule], separation: Separation::None };
    TrustRoot {
        version,
        issued: UnixMs(1000),
        expires: UnixMs(2000),
        keys: of.iter().map(key).collect(),
        root: role(threshold, of),
        roles: [("approvers".parse().unwrap(), role(threshold, of))].into(),
        apps: [("shop".parse().unwrap(), publishers)].into(),
        environments: [
            ("staging".parse().unwrap(), Gate::PublisherOnly {}),
            ("production".parse().unwrap(), gate),
        ]
        .into(),
        coordinators: vec![CoordinatorPin { id: "c0ffee".into(), ca_sha256: Sha256::of(b"ca") }],
        revoked: vec![],
        enrolment: None,
    }
}

pub(super) fn envelope(root: &TrustRoot, by: &[&Owned]) -> Vec<u8> {
    let keys: Vec<_> = by.iter().map(|owned| &owned.key).collect();
    Envelope::sign(TRUST_ROOT_TYPE, root.to_payload(), &keys).to_vec()
}

fn refused(change: impl FnOnce(&mut TrustRoot)) -> String {
    let (a, b) = (owned("alice"), owned("bob"));
    let mut root = root(1, 2, &[&a, &b]);
    root.check().unwrap();
    change(&mut root);
    let refusal = root.check().expect_err("must be refused");
    assert_eq!(refusal.code(), "trust-root-invalid");
    refusal.to_string()
}

#[test]
fn a_pinned_root_is_opened_whatever_signatures_were_added_later() {
    let (a, b) = (owned("alice"), owned("bob"));
    let root = root(1, 1, &[&a, &b]);
    let bytes = envelope(&root, &[&a]);
    let pin = TrustRoot::pin(&bytes).unwrap();
    assert_eq!(TrustRoot::open_pinned(&bytes, pin), Ok(root.clone()));
    assert_eq!(TrustRoot::open_pinned(&envelope(&root, &[&b, &a]), pin), Ok(root));
}

#[test]
fn a_root_with_another_pin_type_or_without_its_own_signatures_is_refused() {
    let (a, b) = (owned("alice"), owned("bob"));
    let root = root(1, 2, &[&a, &b]);
    let bytes = envelope(&root, &[&a, &b]);
    let code = |bytes: &[u8], pin| TrustRoot::open_pinned(bytes, pin).expect_err("must be refused").code();
    let pin = Sha256::of(&root.to_payload());
    assert_eq!(code(&bytes, Sha256::of(b"another")), "trust-root-invalid");
    assert_eq!(code(&envelope(&root, &[&a]), pin), "signature-invalid");
    assert_eq!(code(&envelope(&root, &[&a, &owned("eve")]), pin), "signature-invalid");
    assert_eq!(code(&envelope(&root, &[]), pin), "signature-missing");
    let statement = Envelope::sign(STATEMENT_TYPE, root.to_payload(), &[&a.key, &b.key]).to_vec();
    assert_eq!(code(&statement, pin), "malformed");
    assert_eq!(code(b"{}", pin), "malformed");
}

#[test]
fn the_next_root_is_signed_by_the_thresholds_of_both() {
    let (a, b, c, d) = (owned("alice"), owned("bob"), owned("carol"), owned("dan"));
    let first = root(1, 2, &[&a, &b]);
    let second = root(2, 2, &[&c, &d]);
    assert_eq!(first.open_next(&envelope(&second, &[&a, &b, &c, &d])), Ok(second.clone()));
    for too_few in [&[&a, &b][..], &[&c, &d], &[&a, &c, &d], &[&a, &b, &c], &[]] {
        let refusal = first.open_next(&envelope(&second, too_few)).unwrap_err();
        assert!(refusal.code().starts_with("signature-"), "{refusal}");
    }
}

#[test]
fn versions_follow_one_by_one() {
    let a = owned("alice");
    let second = root(2, 1, &[&a]);
    for version in [1, 2, 4, u64::MAX] {
        let refusal = second.open_next(&envelope(&root(version, 1, &[&a]), &[&a])).unwrap_err();
        assert_eq!(refusal.code(), "trust-root-invalid", "{version}");
    }
    second.open_next(&envelope(&root(3, 1, &[&a]), &[&a])).unwrap();
    let last = root(u64::MAX, 1, &[&a]);
    last.open_next(&envelope(&root(0, 1, &[&a]), &[&a])).unwrap_err();
}

#[test]
fn a_signed_root_that_does_not_hold_together_is_refused() {
    let a = owned("alice");
    let first = root(1, 1, &[&a]);
    let mut second = root(2, 1, &[&a]);
    second.apps.values_mut().for_each(|app| app.publishers.threshold = 0);
    assert_eq!(first.open_next(&envelope(&second, &[&a])).unwrap_err().code(), "trust-root-invalid");
    let unknown =
        String::from_utf8(root(2, 1, &[&a]).to_payload()).unwrap().replacen('{', "{\"later\":1,", 1);
    let bytes = Envelope::sign(TRUST_ROOT_TYPE, unknown.into_bytes(), &[&a.key]).to_vec();
    assert_eq!(first.open_next(&bytes).unwrap_err().code(), "malformed");
}

#[test]
fn a_threshold_can_be_met_and_must_be() {
    assert!(refused(|root| root.root.threshold = 0).contains("at least 1"));
    assert!(refused(|root| root.root.threshold = 3).contains("2 distinct owners"));
    assert!(
        refused(|root| root.root = RoleKeys { keys: vec![], threshold: 1 }).contains("0 distinct owners")
    );
    assert!(
        refused(|root| root.roles.values_mut().for_each(|role| role.threshold = 0)).contains("approvers")
    );
    assert!(
        refused(|root| root.apps.values_mut().for_each(|app| app.publishers.threshold = 9)).contains("shop")
    );
    let one_owner =
        |root: &mut TrustRoot| root.keys.values_mut().for_each(|key| key.owner = "alice".parse().unwrap());
    assert!(refused(one_owner).contains("1 distinct owners"));
}

#[test]
fn keys_are_what_their_ids_say_and_are_listed_once() {
    assert!(refused(|root| root.root.keys.push(Sha256::of(b"none"))).contains("there is no key"));
    assert!(refused(|root| root.root.keys.push(root.root.keys[0])).contains("listed twice"));
    let swap = |root: &mut TrustRoot| {
        let other = root.keys.values().last().unwrap().public.clone();
        root.keys.values_mut().next().unwrap().public = other;
    };
    assert!(refused(swap).contains("has the id"));
    let weak = |raw: [u8; 32]| {
        move |root: &mut TrustRoot| {
            use base64::{Engine, engine::general_purpose::STANDARD};
            let public = STANDARD.encode(raw);
            let key = Key { scheme: Scheme::Ed25519, public, owner: "eve".parse().unwrap() };
            root.keys.insert(Sha256::of(&raw), key);
        }
    };
    assert!(refused(weak([0; 32])).contains("small order"));
    assert!(refused(weak([0xff; 32])).contains("canonical"));
}

#[test]
fn a_gate_says_what_it_requires() {
    let gate = |change: fn(&mut Vec<GateRule>, &mut Vec<GateRule>)| {
        refused(move |root| {
            let Some(Gate::Statements { require, rearm, .. }) = root.environments.get_mut("production")
            else {
                panic!()
            };
            change(require, rearm);
        })
    };
    assert!(gate(|require, _| require.clear()).contains("requires nothing"));
    assert!(gate(|require, _| require[0].threshold = 0).contains("at least 1"));
    assert!(gate(|require, _| require[0].threshold = 3).contains("2 distinct owners"));
    assert!(gate(|_, rearm| rearm[0].role = "nobody".parse().unwrap()).contains("there is no role"));
    assert!(gate(|require, _| require[0].predicate = String::new()).contains("predicate type"));
    assert!(gate(|_, rearm| rearm[0].condition = Some(String::new())).contains("where"));
    let long = |_: &mut Vec<GateRule>, rearm: &mut Vec<GateRule>| rearm[0].condition = Some("x".repeat(4097));
    assert!(gate(long).contains("`where` has 1 to 4096 bytes"));
    assert!(gate(|require, _| require[0].condition = Some("predicate.x ==".into())).contains("not CEL"));
    assert!(gate(|_, rearm| rearm[0].condition = Some("now() > 1".into())).contains("`now`"));
    for ours in ["consign:config/v1", "consign:enrolled/v1", "consign:decision/v1"] {
        let refusal = refused(|root| {
            if let Some(Gate::Statements { require, .. }) = root.environments.get_mut("production") {
                require[0].predicate = ours.into();
            }
        });
        assert!(refusal.contains("says nothing of an artifact"), "{refusal}");
    }
    assert!(gate(|require, _| *require = vec![require[0].clone(); 17]).contains("more than 16 rules"));
    assert!(gate(|_, rearm| *rearm = vec![rearm[0].clone(); 17]).contains("more than 16 rules"));
}

#[test]
fn a_gate_may_have_as_many_rules_as_the_limit_says() {
    let (a, b) = (owned("alice"), owned("bob"));
    let mut root = root(1, 2, &[&a, &b]);
    if let Some(Gate::Statements { require, rearm, .. }) = root.environments.get_mut("production") {
        *require = vec![require[0].clone(); 16];
        rearm.clone_from(require);
    }
    root.check().unwrap();
}

#[test]
fn the_rest_holds_together() {
    assert!(refused(|root| root.version = 0).contains("begin with 1"));
    assert!(refused(|root| root.expires = root.issued).contains("expires"));
    assert!(refused(|root| root.revoked = vec![Sha256::of(b"x"); 2]).contains("revoked twice"));
    assert!(refused(|root| root.coordinators.push(root.coordinators[0].clone())).contains("listed twice"));
    assert!(refused(|root| root.coordinators[0].id = "a/b".into()).contains("coordinator id"));
    let floor = OrderingNumber { epoch: 2, ms: UnixMs(0) };
    assert!(refused(|root| root.apps.values_mut().for_each(|app| app.floor = floor)).contains("later epoch"));
}

#[test]
fn whatever_an_older_agent_could_not_read_makes_a_document_of_the_newer_type() {
    let (a, b) = (owned("alice"), owned("bob"));
    let old = root(1, 1, &[&a, &b]);
    assert_eq!(old.payload_type(), TRUST_ROOT_TYPE);
    let text = |root: &TrustRoot| String::from_utf8(root.to_payload()).unwrap();
    assert!(
        !text(&old).contains("separation"),
        "what an older agent does not know stands in no older document"
    );
    let newer = |change: &dyn Fn(&mut TrustRoot)| {
        let mut root = old.clone();
        change(&mut root);
        root.check().unwrap();
        assert_eq!(root.payload_type(), TRUST_ROOT_V2_TYPE);
        let bytes = Envelope::sign(TRUST_ROOT_V2_TYPE, root.to_payload(), &[&a.key, &b.key]).to_vec();
        assert_eq!(TrustRoot::open_pinned(&bytes, TrustRoot::pin(&bytes).unwrap()), Ok(root.clone()));
        text(&root)
    };
    for (separation, written) in [(Separation::Publisher, "publisher"), (Separation::All, "all")] {
        let text = newer(&|root| {
            if let Some(Gate::Statements { rearm, separation: known, .. }) =
                root.environments.get_mut("production")
            {
                *known = separation;
                rearm.clear();
            }
        });
        assert!(text.contains(&format!("\"separation\":\"{written}\"")), "{text}");
    }
    newer(&|root| root.enrolment = Some(root.root.clone()));
    newer(&|root| root.apps.values_mut().for_each(|app| app.config = Some("approvers".parse().unwrap())));
    newer(&|root| {
        if let Some(key) = root.keys.values_mut().next() {
            key.scheme = Scheme::Sshsig;
        }
    });
}

#[test]
fn config_is_signed_by_a_role_that_is_there() {
    let nobody = |root: &mut TrustRoot| {
        root.apps.values_mut().for_each(|app| app.config = Some("nobody".parse().unwrap()));
    };
    assert!(refused(nobody).contains("there is no role nobody"));
}

#[test]
fn a_role_has_as_many_keys_and_a_predicate_as_many_characters_as_the_limits_say() {
    let people: Vec<_> = (0..65).map(|index| owned(format!("p{index}").leak())).collect();
    let root = |count: usize| root(1, 1, &people.iter().take(count).collect::<Vec<_>>());
    root(64).check().unwrap();
    assert!(root(65).check().unwrap_err().to_string().contains("more than 64 keys"));
    let predicate = |text: String| {
        let mut root = root(2);
        if let Some(Gate::Statements { require, .. }) = root.environments.get_mut("production") {
            require[0].predicate = text;
        }
        root.check().map_err(|refusal| refusal.to_string())
    };
    predicate("x".repeat(200)).unwrap();
    for bad in ["x".repeat(201), "a b".into(), "a\n".into(), "\u{e4}".into()] {
        assert!(predicate(bad).unwrap_err().contains("1 to 200 visible"));
    }
    let condition = |text: String| {
        let mut root = root(2);
        if let Some(Gate::Statements { require, .. }) = root.environments.get_mut("production") {
            require[0].condition = Some(text);
        }
        root.check().map_err(|refusal| refusal.to_string())
    };
    let of = |length: usize| format!("{:length$}", "predicate == 'a'");
    condition(of(4096)).unwrap();
    assert!(condition(of(4097)).unwrap_err().contains("1 to 4096 bytes"));
}

#[test]
fn a_coordinators_id_is_repeated_in_one_short_line() {
    for id in ["\n\u{1b}[31m".to_owned() + &"x".repeat(9000), "x".repeat(9000)] {
        let why = refused(|root| root.coordinators[0].id = id.clone());
        assert!(why.len() < 1000 && !why.contains(char::is_control), "{why:?}");
    }
}
