//! The cases of TUF's conformance suite for its root role, carried over: whoever is stolen from, however the chain is cut
//! or bent, a host stays at the last version that its owners agreed on. (Freeze and mix-and-match are about TUF's other
//! roles: here the ordering numbers stand for them, and are tested with the decision.)

use super::{
    tests::{Owned, envelope, owned, role, root},
    *,
};
use crate::trust::{SigningKey, sshsig};

/// Follows from `first` as far as it goes; where it stops, and why.
fn follow(first: &TrustRoot, chain: &[Vec<u8>]) -> (u64, Option<&'static str>) {
    let mut current = first.clone();
    for link in chain {
        match current.open_next(link) {
            Ok(next) => current = next,
            Err(refusal) => return (current.version, Some(refusal.code())),
        }
    }
    (current.version, None)
}

#[test]
fn every_role_rotates_through_its_whole_set_of_keys() {
    let all = [owned("a"), owned("b"), owned("c"), owned("d"), owned("e")];
    let of = |version: usize| [&all[version % 5], &all[(version + 1) % 5]];
    let first = root(1, 2, &of(1));
    let mut chain = Vec::new();
    for version in 2..=12_usize {
        // Both of the new, and both of the old of whom one stays.
        let signers: Vec<&Owned> = of(version - 1).into_iter().chain([of(version)[1]]).collect();
        chain.push(envelope(&root(version as u64, 2, &of(version)), &signers));
    }
    assert_eq!(follow(&first, &chain), (12, None));
    // One link out of the middle, and nothing after it is reached.
    let mut gap = chain.clone();
    gap.remove(4);
    assert_eq!(follow(&first, &gap), (5, Some("signature-invalid")));
    // The keys of long ago are nobody's now.
    let stolen = envelope(&root(13, 2, &of(1)), &of(1));
    assert_eq!(follow(&first, &[chain, vec![stolen]].concat()), (12, Some("signature-invalid")));
}

#[test]
fn a_root_signed_by_the_new_keys_alone_or_the_old_keys_alone_is_not_taken() {
    let (old, new) = (owned("old"), owned("new"));
    let first = root(1, 1, &[&old]);
    let next = root(2, 1, &[&new]);
    for (signers, code) in [
        (&[&new][..], Some("signature-invalid")),
        (&[&old], Some("signature-invalid")),
        (&[], Some("signature-missing")),
    ] {
        assert_eq!(follow(&first, &[envelope(&next, signers)]), (1, code));
    }
    assert_eq!(follow(&first, &[envelope(&next, &[&old, &new])]), (2, None));
}

#[test]
fn a_threshold_is_raised_and_lowered_by_those_whom_it_binds() {
    let all = [owned("a"), owned("b"), owned("c")];
    let [a, b, c] = [&all[0], &all[1], &all[2]];
    let (one, two) = (|version| root(version, 1, &[a, b, c]), |version| root(version, 2, &[a, b, c]));
    // Raised: one was enough before, two must agree from now on, and to this.
    assert_eq!(follow(&one(1), &[envelope(&two(2), &[a])]), (1, Some("signature-invalid")));
    assert_eq!(follow(&one(1), &[envelope(&two(2), &[b, c])]), (2, None));
    // Lowered: by two.
    assert_eq!(follow(&two(2), &[envelope(&one(3), &[a])]), (2, Some("signature-invalid")));
    assert_eq!(follow(&two(2), &[envelope(&one(3), &[a, c])]), (3, None));
    // One who signs three times is one.
    let mut thrice = envelope(&two(3), &[a]);
    for _ in 0..2 {
        let mut parsed = Envelope::parse(&thrice, TRUST_ROOT_BYTES).unwrap();
        let mut again = parsed.signatures()[0].clone();
        again.key_id = format!("{}{}", again.key_id, parsed.signatures().len());
        parsed.add(again);
        thrice = parsed.to_vec();
    }
    assert_eq!(follow(&two(2), &[thrice]), (2, Some("signature-invalid")));
    // Two keys of one owner are one as well, and so is one key under two schemes.
    let second_of_a = owned("a");
    let mut of_one = root(1, 1, &[a, &second_of_a, b]);
    of_one.root.threshold = 2;
    of_one.check().unwrap();
    let next = TrustRoot { version: 2, ..of_one.clone() };
    assert_eq!(follow(&of_one, &[envelope(&next, &[a, &second_of_a])]), (1, Some("signature-invalid")));
    assert_eq!(follow(&of_one, &[envelope(&next, &[&second_of_a, b])]), (2, None));
}

#[test]
fn keys_of_other_roles_sign_no_root() {
    let (owner, publisher) = (owned("owner"), owned("publisher"));
    let with_publisher = |version| {
        let mut root = root(version, 1, &[&owner, &publisher]);
        root.root = role(1, &[&owner]);
        root
    };
    let next = envelope(&with_publisher(2), &[&publisher]);
    assert_eq!(follow(&with_publisher(1), &[next]), (1, Some("signature-invalid")));
}

#[test]
fn neither_back_nor_far_ahead() {
    let a = owned("a");
    let fifth = root(5, 1, &[&a]);
    for version in [1, 4, 5, 7, 1000, u64::MAX] {
        let stopped = follow(&fifth, &[envelope(&root(version, 1, &[&a]), &[&a])]);
        assert_eq!(stopped, (5, Some("trust-root-invalid")), "{version}");
    }
    // At the last version there is no next one, and not the first one again.
    let last = root(u64::MAX, 1, &[&a]);
    for version in [1, u64::MAX] {
        last.open_next(&envelope(&root(version, 1, &[&a]), &[&a])).unwrap_err();
    }
    // Two different documents of one version: the first one that came stands.
    let mut other = root(6, 1, &[&a]);
    other.expires = UnixMs(3000);
    let chain = [envelope(&root(6, 1, &[&a]), &[&a]), envelope(&other, &[&a])];
    assert_eq!(follow(&fifth, &chain), (6, Some("trust-root-invalid")));
}

#[test]
fn one_that_expired_in_the_middle_is_stepped_over() {
    let a = owned("a");
    let mut middle = root(2, 1, &[&a]);
    (middle.issued, middle.expires) = (UnixMs(1), UnixMs(2));
    let mut last = root(3, 1, &[&a]);
    last.expires = UnixMs(u64::MAX);
    let chain = [envelope(&middle, &[&a]), envelope(&last, &[&a])];
    assert_eq!(follow(&root(1, 1, &[&a]), &chain), (3, None));
}

/// TUF's clients give up after some hundreds of rotations, since anybody may offer them more. Here every hop is signed by
/// the owners: whoever was away for a thousand of them follows them all.
#[test]
fn a_thousand_and_twenty_five_hops_are_followed() {
    let (a, b) = (owned("a"), owned("b"));
    let by_turns = |version: u64| if version.is_multiple_of(2) { &a } else { &b };
    let chain: Vec<Vec<u8>> = (2..=1026)
        .map(|version| {
            envelope(&root(version, 1, &[by_turns(version)]), &[by_turns(version), by_turns(version - 1)])
        })
        .collect();
    assert_eq!(chain.len(), 1025);
    assert_eq!(follow(&root(1, 1, &[by_turns(1)]), &chain), (1026, None));
}

#[test]
fn what_was_signed_as_something_else_is_no_root() {
    let a = owned("a");
    let next = root(2, 1, &[&a]);
    // The same bytes, signed as a statement, and put into an envelope that says otherwise.
    let statement = Envelope::sign(super::super::STATEMENT_TYPE, next.to_payload(), &[&a.key]);
    let relabelled = String::from_utf8(statement.to_vec()).unwrap();
    let relabelled = relabelled.replace(super::super::STATEMENT_TYPE, TRUST_ROOT_TYPE);
    assert_eq!(follow(&root(1, 1, &[&a]), &[statement.to_vec()]), (1, Some("malformed")));
    assert_eq!(follow(&root(1, 1, &[&a]), &[relabelled.into_bytes()]), (1, Some("signature-invalid")));
    // A document that old agents could not read under the old name, and the other way round.
    let mut newer = next.clone();
    newer.enrolment = Some(newer.root.clone());
    let wrong = Envelope::sign(TRUST_ROOT_TYPE, newer.to_payload(), &[&a.key]).to_vec();
    assert_eq!(follow(&root(1, 1, &[&a]), &[wrong]), (1, Some("malformed")));
    let wrong = Envelope::sign(TRUST_ROOT_V2_TYPE, next.to_payload(), &[&a.key]).to_vec();
    assert_eq!(follow(&root(1, 1, &[&a]), &[wrong]), (1, Some("malformed")));
}

#[test]
fn an_ssh_key_owns_a_root_by_its_own_kind_of_signature() {
    let (a, b) = (owned("a"), owned("b"));
    let with_ssh = |version| {
        let mut root = root(version, 2, &[&a, &b]);
        root.keys.get_mut(&b.key.public().id()).unwrap().scheme = Scheme::Sshsig;
        root
    };
    let next = with_ssh(2);
    let payload = next.to_payload();
    let signed = |ssh: &SigningKey| {
        let mut envelope = Envelope::sign(next.payload_type(), payload.clone(), &[&a.key]);
        let message = super::super::pae(next.payload_type(), &payload);
        let bytes = sshsig::blob(&ssh.public(), &ssh.sign(&sshsig::to_sign(&message)));
        envelope.add(super::super::Signature { key_id: ssh.public().id().to_string(), bytes });
        envelope.to_vec()
    };
    assert_eq!(follow(&with_ssh(1), &[signed(&b.key)]), (2, None));
    assert_eq!(follow(&with_ssh(1), &[signed(&owned("b").key)]), (1, Some("signature-invalid")));
    let raw = Envelope::sign(next.payload_type(), payload.clone(), &[&a.key, &b.key]).to_vec();
    assert_eq!(follow(&with_ssh(1), &[raw]), (1, Some("signature-invalid")));
}

#[test]
fn a_draft_is_read_whoever_has_signed_it_and_decides_nothing() {
    let (a, b) = (owned("a"), owned("b"));
    let first = root(1, 2, &[&a, &b]);
    let next = root(2, 2, &[&a, &b]);
    for signers in [&[][..], &[&a], &[&a, &b]] {
        assert_eq!(first.read_next(&envelope(&next, signers)), Ok(next.clone()));
    }
    assert_eq!(
        first.read_next(&envelope(&root(3, 2, &[&a, &b]), &[])).unwrap_err().code(),
        "trust-root-invalid"
    );
    let mut unsound = next;
    unsound.root.threshold = 3;
    assert_eq!(first.read_next(&envelope(&unsound, &[&a, &b])).unwrap_err().code(), "trust-root-invalid");
    assert_eq!(first.read_next(b"{}").unwrap_err().code(), "malformed");
}
