//! What carries signatures and keys: nothing that was not signed may ever count as signed.

use std::{collections::BTreeSet, sync::LazyLock};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use consign_common::{
    digest::Sha256,
    json,
    limits::{ENVELOPE_BYTES, KEY_FILE_BYTES, SIGNATURES, SSHSIG_BYTES},
    trust::{
        Envelope, JoinToken, KeyFile, PublicKey, STATEMENT_TYPE, Scheme, Signature, SigningKey,
        TRUST_ROOT_TYPE, pae, sshsig,
    },
};

use super::{
    JSON_WORDS, Seen, Target, must, reached, refused, size,
    world::{OWNERS, Owners, ROOT, name, role, signed},
};

pub(super) const ENVELOPE: Target = Target {
    name: "envelope",
    about: "DSSE envelopes: only what an owner has signed verifies, as the type that he signed, and he counts once",
    golden: &["envelope.json", "trust-root-envelope.json", "statement-approval.json"],
    more: envelopes,
    words: JSON_WORDS,
    most_bytes: 64 << 10,
    stages: &["read", "hinted", "signed again", "signed by two"],
    in_test: 20_000,
    check: envelope,
};

const PAYLOADS: &[(&str, &[u8])] = &[
    (STATEMENT_TYPE, b"{\"_type\":\"https://in-toto.io/Statement/v1\"}"),
    (STATEMENT_TYPE, b""),
    (TRUST_ROOT_TYPE, b"{\"version\":1}"),
    ("a", b"b c"),
    ("a b", b"c"),
];

fn envelopes() -> Vec<Vec<u8>> {
    let Owners { alice, ci, carol, second, stranger } = &*OWNERS;
    let mut seeds = Vec::new();
    for (payload_type, payload) in PAYLOADS {
        for by in [
            vec![alice],
            vec![alice, carol],
            vec![alice, second],
            vec![carol],
            vec![stranger],
            vec![],
            vec![alice, ci, carol],
        ] {
            seeds.push(signed(payload_type, payload, &by).to_vec());
        }
    }
    seeds
}

fn envelope(bytes: &[u8]) -> Result<Seen, String> {
    let envelope = match Envelope::parse(bytes, ENVELOPE_BYTES) {
        Ok(envelope) => envelope,
        Err(refusal) => return refused(&refusal),
    };
    reached("read");
    must(envelope.signatures().len() <= SIGNATURES, || "more signatures than the limit".into())?;
    must(Envelope::parse(&envelope.to_vec(), ENVELOPE_BYTES).as_ref() == Ok(&envelope), || {
        "it is not read again as what it was".into()
    })?;

    let Owners { alice, carol, second, stranger, .. } = &*OWNERS;
    let everybody = role(1, &[alice, carol, second]);
    let signers = envelope.signers(&everybody, &ROOT.keys);
    let was_signed = PAYLOADS.iter().any(|(payload_type, payload)| {
        *payload_type == envelope.payload_type() && *payload == envelope.payload()
    });
    let is_golden = GOLDEN.iter().any(|(payload_type, payload)| {
        payload_type == envelope.payload_type() && payload == envelope.payload()
    });
    must(signers.is_empty() || was_signed || is_golden, || {
        "something verifies that nobody has signed".into()
    })?;
    // Once more, by hand, whatever hints there are.
    let message = pae(envelope.payload_type(), envelope.payload());
    for (public, key) in &signers {
        let verifies = envelope.signatures().iter().any(|signature| match key.scheme {
            Scheme::Ed25519 => public.verify(&message, &signature.bytes),
            Scheme::Sshsig => sshsig::verify(public, &message, &signature.bytes),
        });
        must(verifies, || "a signer without a signature".into())?;
    }
    let owners: BTreeSet<_> = signers.values().map(|key| key.owner.as_str()).collect();
    for threshold in 0..4 {
        let enough = envelope.verified_by("document", &role(threshold, &[alice, carol, second]), &ROOT.keys);
        let expected = owners.len() >= usize::try_from(threshold.max(1)).unwrap();
        must(enough.is_ok() == expected, || {
            format!("{} owners for a threshold of {threshold}", owners.len())
        })?;
        if let Err(refusal) = enough {
            refused(&refusal)?;
        }
    }
    must(envelope.verified_by("document", &role(1, &[stranger]), &ROOT.keys).is_err(), || {
        "a stranger's word counts".into()
    })?;
    signed_again(&envelope)?;
    Ok(Seen::Accepted(format!("{owners:?} of {}", size(envelope.signatures().len()))))
}

/// What Alice and Carol sign as it stands, whatever was changed in it, counts as theirs: every second signature is made
/// again, with the hint that stands there.
fn signed_again(envelope: &Envelope) -> Result<(), String> {
    let Owners { alice, carol, second, stranger, .. } = &*OWNERS;
    let by = signed(envelope.payload_type(), envelope.payload(), &[alice, carol]);
    let mut again = Envelope::unsigned(envelope.payload_type(), envelope.payload().to_vec());
    let mut expected = BTreeSet::new();
    for (index, old) in envelope.signatures().iter().enumerate() {
        let made = &by.signatures()[index / 2 % 2];
        let is_hint = |key: &&SigningKey| key.public().id().to_string() == old.key_id;
        // A hint that names another of the keys is believed.
        let hinted = [alice, &OWNERS.ci, carol, second].into_iter().find(is_hint);
        if index.is_multiple_of(2) && hinted.is_none_or(|key| key.public().id().to_string() == made.key_id) {
            reached("hinted");
            again.add(Signature { key_id: old.key_id.clone(), bytes: made.bytes.clone() });
            // A second one of the same hint has taken the place of the first.
            expected.retain(|(hint, _)| *hint != old.key_id);
            expected.insert((old.key_id.clone(), index / 2 % 2));
        }
    }
    let again = Envelope::parse(&again.to_vec(), usize::MAX).map_err(|refusal| refusal.to_string())?;
    let everybody = role(1, &[alice, carol, second, stranger]);
    let signers = again.signers(&everybody, &ROOT.keys);
    let wanted: BTreeSet<usize> = expected.into_iter().map(|(_, who)| who).collect();
    must(signers.len() == wanted.len(), || {
        format!("{} signers of {} who have signed", signers.len(), wanted.len())
    })?;
    if !wanted.is_empty() {
        reached("signed again");
    }
    let two = again.verified_by("document", &role(2, &[alice, carol, second]), &ROOT.keys);
    must(two.is_ok() == (wanted.len() == 2), || "two owners are counted otherwise".into())?;
    if two.is_ok() {
        reached("signed by two");
    }
    Ok(())
}

/// What Alice has signed in the golden files.
static GOLDEN: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let seeds = ENVELOPE.seeds().into_iter().take(ENVELOPE.golden.len());
    let envelopes = seeds.filter_map(|bytes| Envelope::parse(&bytes, ENVELOPE_BYTES).ok());
    envelopes.map(|envelope| (envelope.payload_type().to_owned(), envelope.payload().to_vec())).collect()
});

pub(super) const SSHSIG: Target = Target {
    name: "sshsig",
    about: "signatures as OpenSSH makes them: of a message there is one that verifies for each hash, and no other bytes do",
    golden: &[],
    more: blobs,
    words: &[
        "SSHSIG",
        "\0\0\0\x01",
        "\0\0\0\x02",
        "\0\0\0\x0bssh-ed25519",
        "\0\0\0\x07ssh-rsa",
        "\0\0\0\x07consign",
        "\0\0\0\x03git",
        "\0\0\0\x04file",
        "\0\0\0\x06sha256",
        "\0\0\0\x06sha512",
        "\0\0\0\x04sha1",
        "\0\0\0\0",
        "\0\0\0\x20",
        "\0\0\0\x40",
        "\0\0\0\x33",
        "\0\0\0\x53",
        "sk-ssh-ed25519@openssh.com",
        "\u{1}",
    ],
    most_bytes: 1024,
    stages: &["magic", "framed", "signed again", "verifies"],
    in_test: 20_000,
    check: sshsig_blob,
};

const MESSAGE: &[u8] = b"DSSEv1 1 a 1 b";

/// Carol's signatures of the message, one for each hash.
static BLOBS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let carol = &OWNERS.carol;
    let of = |hash_name: &[u8], algorithm| {
        let mut frame = b"SSHSIG".to_vec();
        sshsig::put(&mut frame, b"consign");
        sshsig::put(&mut frame, b"");
        sshsig::put(&mut frame, hash_name);
        sshsig::put(&mut frame, ring::digest::digest(algorithm, MESSAGE).as_ref());
        let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
        sshsig::put(&mut blob, &sshsig::public_blob(&carol.public()));
        sshsig::put(&mut blob, b"consign");
        sshsig::put(&mut blob, b"");
        sshsig::put(&mut blob, hash_name);
        let mut signature = Vec::new();
        sshsig::put(&mut signature, b"ssh-ed25519");
        sshsig::put(&mut signature, &carol.sign(&frame));
        sshsig::put(&mut blob, &signature);
        blob
    };
    vec![of(b"sha512", &ring::digest::SHA512), of(b"sha256", &ring::digest::SHA256)]
});

fn blobs() -> Vec<Vec<u8>> {
    let carol = &OWNERS.carol;
    let mut seeds = BLOBS.clone();
    seeds.push(sshsig::blob(&carol.public(), &carol.sign(&sshsig::to_sign(b"another message"))));
    seeds.push(sshsig::blob(&OWNERS.alice.public(), &OWNERS.alice.sign(&sshsig::to_sign(MESSAGE))));
    seeds.push(sshsig::public_blob(&carol.public()));
    let mut signature = Vec::new();
    sshsig::put(&mut signature, b"ssh-ed25519");
    sshsig::put(&mut signature, &[7; 64]);
    seeds.push(signature);
    seeds
}

fn sshsig_blob(bytes: &[u8]) -> Result<Seen, String> {
    let carol = OWNERS.carol.public();
    let verifies = sshsig::verify(&carol, MESSAGE, bytes);
    must(verifies == BLOBS.iter().any(|blob| blob == bytes), || {
        format!("these {} bytes are called {verifies}", bytes.len())
    })?;
    must(!verifies || bytes.len() <= SSHSIG_BYTES, || "longer than the limit".into())?;
    for other in [&OWNERS.alice, &OWNERS.ci] {
        let theirs = sshsig::blob(&other.public(), &other.sign(&sshsig::to_sign(MESSAGE)));
        must(!sshsig::verify(&other.public(), MESSAGE, bytes) || theirs == bytes, || {
            "another key's word".into()
        })?;
    }
    if bytes.starts_with(b"SSHSIG") {
        reached("magic");
    }
    framed(bytes)?;
    let mut shape = format!("verifies {verifies}");
    for (read, length) in [(sshsig::raw_key(bytes), 32), (sshsig::raw_signature(bytes), 64)] {
        let Some(raw) = read else { continue };
        let mut again = Vec::new();
        sshsig::put(&mut again, b"ssh-ed25519");
        sshsig::put(&mut again, raw);
        must(raw.len() == length && again == bytes, || "SSH's encoding is read loosely".into())?;
        if length == 32
            && let Ok(key) = PublicKey::from_raw(raw)
        {
            must(sshsig::public_blob(&key) == bytes, || "a key is not written as it was read".into())?;
        }
        shape.push_str(&format!(", {length}"));
    }
    let mut reader = sshsig::Reader::new(bytes);
    let mut strings = 0;
    while reader.string().is_some() {
        strings += 1;
    }
    shape.push_str(&format!(", {} strings", size(strings)));
    match shape.starts_with("verifies true") || shape.contains(", 32") || shape.contains(", 64") {
        true => Ok(Seen::Accepted(shape)),
        false => Ok(Seen::Refused(
            format!("{strings} strings").replace(char::is_numeric, "x") + &"x".repeat(strings.min(9)),
        )),
    }
}

/// A blob that is whole, signed again over what it says: it counts exactly where it says what ours say.
fn framed(bytes: &[u8]) -> Result<(), String> {
    let mut rest = sshsig::Reader::new(bytes);
    let Some(magic) = rest.take(6) else { return Ok(()) };
    let (Some(version), Some(public), Some(namespace), Some(reserved), Some(hash), Some(_)) =
        (rest.number(), rest.string(), rest.string(), rest.string(), rest.string(), rest.string())
    else {
        return Ok(());
    };
    reached("framed");
    let after = &bytes[bytes.len() - remaining(rest)..];
    let algorithm = match hash {
        b"sha256" => &ring::digest::SHA256,
        _ => &ring::digest::SHA512,
    };
    let mut frame = magic.to_vec();
    let mut blob = magic.to_vec();
    blob.extend(version.to_be_bytes());
    sshsig::put(&mut blob, public);
    for part in [namespace, reserved, hash] {
        sshsig::put(&mut frame, part);
        sshsig::put(&mut blob, part);
    }
    sshsig::put(&mut frame, ring::digest::digest(algorithm, MESSAGE).as_ref());
    let carol = &OWNERS.carol;
    let mut signature = Vec::new();
    sshsig::put(&mut signature, b"ssh-ed25519");
    sshsig::put(&mut signature, &carol.sign(&frame));
    sshsig::put(&mut blob, &signature);
    blob.extend_from_slice(after);
    reached("signed again");
    let should = magic == b"SSHSIG"
        && version == 1
        && public == sshsig::public_blob(&carol.public())
        && namespace == b"consign"
        && reserved.is_empty()
        && matches!(hash, b"sha256" | b"sha512")
        && after.is_empty();
    let verifies = sshsig::verify(&carol.public(), MESSAGE, &blob);
    must(verifies == should, || format!("signed again it is called {verifies}"))?;
    if verifies {
        reached("verifies");
    }
    Ok(())
}

fn remaining(mut rest: sshsig::Reader<'_>) -> usize {
    let mut count = 0;
    while rest.take(1).is_some() {
        count += 1;
    }
    count
}

pub(super) const KEY: Target = Target {
    name: "key",
    about: "key files and public keys: what loads can sign, what is signed verifies, and no key fits any message",
    golden: &["key.json"],
    more: || {
        vec![
            OWNERS.carol.public().as_raw().to_vec(),
            STANDARD.encode(OWNERS.alice.public().as_raw()).into_bytes(),
            vec![0; 32],
            vec![0xff; 32],
        ]
    },
    words: JSON_WORDS,
    most_bytes: 8192,
    stages: &["a public key", "JSON", "a key file", "loads"],
    in_test: 20_000,
    check: key,
};

fn key(bytes: &[u8]) -> Result<Seen, String> {
    if let Some(seen) = public_key(bytes)? {
        reached("a public key");
        return Ok(seen);
    }
    if super::is_json(bytes) {
        reached("JSON");
    }
    let file: KeyFile = match json::from_slice(bytes, KEY_FILE_BYTES) {
        Ok(file) => file,
        Err(error) => return refused(&error),
    };
    reached("a key file");
    must(json::from_slice::<KeyFile>(&json::to_vec(&file), KEY_FILE_BYTES).as_ref() == Ok(&file), || {
        "it is not read again as what it was".into()
    })?;
    must(!format!("{file:?}").contains(&file.private) || file.private.len() < 64, || {
        "Debug shows the private key".into()
    })?;
    let key = match file.key() {
        Ok(key) => key,
        Err(error) => return refused(&error),
    };
    reached("loads");
    let public = key.public();
    must(PublicKey::from_raw(public.as_raw()) == Ok(public), || {
        "a key that no trust root could have".into()
    })?;
    must(public.verify(b"message", &key.sign(b"message")), || "what it signs does not verify".into())?;
    must(!public.verify(b"other", &key.sign(b"message")), || "it fits another message".into())?;
    let again = KeyFile::new(name("alice"), &key);
    must(again.key().is_ok_and(|key| key.public() == public), || "it is another key when written".into())?;
    Ok(Seen::Accepted("a key file".into()))
}

/// As raw bytes and as base64.
fn public_key(bytes: &[u8]) -> Result<Option<Seen>, String> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    for (read, how) in [(PublicKey::from_raw(bytes), "raw"), (PublicKey::from_base64(text), "base64")] {
        let Ok(key) = read else { continue };
        must(PublicKey::from_base64(&key.to_base64()) == Ok(key), || {
            "a key is not read as it is written".into()
        })?;
        must(how == "raw" || key.to_base64() == text, || "a key with two spellings".into())?;
        // With R the neutral element and S 0: of a key of small order this is a signature of nearly anything.
        let mut signature = [0; 64];
        signature[0] = 1;
        let fits = [&b"a"[..], b"b", b"c", b"d"].iter().all(|message| key.verify(message, &signature));
        must(!fits, || "one signature fits any message".into())?;
        return Ok(Some(Seen::Accepted(how.into())));
    }
    Ok(None)
}

pub(super) const TOKEN: Target = Target {
    name: "token",
    about: "join tokens: what is read is written as the same text, or as one that is read as the same",
    golden: &["token-agent.txt", "token-operator.txt"],
    more: documents_of_tokens,
    words: &[
        "consign1.",
        "consign2.",
        "enrolment",
        "addresses",
        "a:1",
        "[::1]:7443",
        "coordinator",
        "trust_root",
        "agent",
        "operator",
    ],
    most_bytes: 8192,
    stages: &["decoded", "read"],
    in_test: 20_000,
    check: token,
};

fn documents_of_tokens() -> Vec<Vec<u8>> {
    let tokens = TOKEN.golden.iter().map(|name| super::golden(name));
    let encoded =
        tokens.map(|text| String::from_utf8(text).unwrap().trim().trim_start_matches("consign1.").to_owned());
    let documents = encoded.map(|text| URL_SAFE_NO_PAD.decode(text).unwrap());
    documents.map(|bytes| bytes[..bytes.len() - 4].to_vec()).collect()
}

/// The text; of a document the token around it, because a changed one has another checksum.
fn token(bytes: &[u8]) -> Result<Seen, String> {
    let text = match bytes.first() {
        Some(b'{' | b'[') => {
            let digest = Sha256::of(bytes);
            let document = [bytes, &digest.as_bytes()[..4]].concat();
            format!("consign1.{}", URL_SAFE_NO_PAD.encode(document)).into()
        }
        _ => String::from_utf8_lossy(bytes),
    };
    if text.trim().strip_prefix("consign1.").is_some_and(|text| URL_SAFE_NO_PAD.decode(text).is_ok()) {
        reached("decoded");
    }
    let token = match JoinToken::parse(&text) {
        Ok(token) => token,
        Err(error) => return refused(&error),
    };
    reached("read");
    let again = token.to_text().map_err(|error| format!("what was read cannot be written: {error}"))?;
    must(JoinToken::parse(&again).as_ref() == Ok(&token), || "it is not read again as what it was".into())?;
    must(token.secret_bytes().is_ok(), || "a token without a secret".into())?;
    Ok(Seen::Accepted(format!("{} addresses", size(token.addresses.len()))))
}
