//! Keys in every form that people have them in, made and checked by OpenSSH's own programs.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use consign_common::{
    limits::KEY_FILE_BYTES,
    time::UnixMs,
    trust::{
        Envelope, Key, PublicKey, RoleKeys, STATEMENT_TYPE, Scheme, Signature, SigningKey, TrustRoot, pae,
        sshsig,
    },
};

use super::{
    KeyName, PassphraseArgs, PublicKeyName, SealedKeyFile, Signer,
    agent::{find_at, fingerprint, socket},
    public_line, sign,
};
use crate::cli::key::PublicKeyFile;

const PAYLOAD: &[u8] = br#"{"some":"payload"}"#;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Runs it here; it must succeed.
    fn run(&self, program: &str, args: &[&str], stdin: &[u8]) -> Vec<u8> {
        let (done, stdout) = self.try_run(program, args, stdin);
        assert!(done, "{program} {args:?}");
        stdout
    }

    fn try_run(&self, program: &str, args: &[&str], stdin: &[u8]) -> (bool, Vec<u8>) {
        let mut child = Command::new(program)
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; tests/hosts/packages.sh installs it"));
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), output.stdout)
    }

    fn keygen(&self, kind: &[&str], name: &str, passphrase: &str) -> PathBuf {
        let mut args = vec!["-q", "-f", name, "-N", passphrase, "-C", name];
        args.extend(kind);
        self.run("ssh-keygen", &args, b"");
        self.path(name)
    }

    /// The blob that `ssh-keygen -Y sign` makes of our pre-image.
    fn openssh_signature(&self, key: &str, namespace: &str) -> Vec<u8> {
        let message = pae(STATEMENT_TYPE, PAYLOAD);
        let armored = self.run("ssh-keygen", &["-q", "-Y", "sign", "-f", key, "-n", namespace], &message);
        dearmored(&String::from_utf8(armored).unwrap())
    }

    /// Whether OpenSSH takes the blob as ada's signature of our pre-image.
    fn openssh_verifies(&self, public: &str, blob: &[u8]) -> bool {
        let line = std::fs::read_to_string(self.path(public)).unwrap();
        self.write("allowed", format!("ada namespaces=\"consign\" {line}"));
        self.write("sig", armored(blob));
        let args = ["-Y", "verify", "-f", "allowed", "-I", "ada", "-n", "consign", "-s", "sig"];
        self.try_run("ssh-keygen", &args, &pae(STATEMENT_TYPE, PAYLOAD)).0
    }
}

fn armored(blob: &[u8]) -> String {
    let text = STANDARD.encode(blob);
    let lines: Vec<&str> =
        text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
}

fn dearmored(text: &str) -> Vec<u8> {
    let inner: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(inner).unwrap()
}

fn open(path: &Path) -> Signer {
    Signer::open(&path.to_owned().into(), &PassphraseArgs::default()).unwrap()
}

fn refused(path: &Path) -> String {
    Signer::open(&path.to_owned().into(), &PassphraseArgs::default()).unwrap_err().to_string()
}

/// Whether a role of this key alone, in this scheme, has signed.
fn verifies(envelope: &Envelope, public: &PublicKey, scheme: Scheme) -> bool {
    let key = Key { scheme, public: public.to_base64(), owner: "ada".parse().unwrap() };
    let role = RoleKeys { keys: vec![public.id()], threshold: 1 };
    let read = Envelope::parse(&envelope.to_vec(), 10_000).unwrap();
    read.verified_by("document", &role, &[(public.id(), key)].into()).is_ok()
}

fn with(blob: Vec<u8>) -> Envelope {
    let mut envelope = Envelope::unsigned(STATEMENT_TYPE, PAYLOAD.to_vec());
    envelope.add(Signature { key_id: "hint".into(), bytes: blob });
    envelope
}

/// `--passphrase-file` with this in it.
fn passphrase(dir: &Dir, text: &str) -> PassphraseArgs {
    use clap::{Args, FromArgMatches};
    let path = dir.write("passphrase", text);
    let command = PassphraseArgs::augment_args(clap::Command::new("x"));
    let line = ["x", "--passphrase-file", path.to_str().unwrap()];
    PassphraseArgs::from_arg_matches(&command.get_matches_from(line)).unwrap()
}

#[test]
fn what_ssh_keygen_signs_verifies_here_and_what_we_sign_verifies_there() {
    let dir = Dir::new();
    let signer = open(&dir.keygen(&["-t", "ed25519"], "id", ""));
    assert_eq!(signer.scheme(), Scheme::Sshsig);

    let theirs = with(dir.openssh_signature("id", "consign"));
    assert!(verifies(&theirs, signer.public(), Scheme::Sshsig));
    assert!(!verifies(&theirs, signer.public(), Scheme::Ed25519));

    let ours = sign(STATEMENT_TYPE, PAYLOAD.to_vec(), [&signer]).unwrap();
    assert!(verifies(&ours, signer.public(), Scheme::Sshsig));
    let blob = &ours.signatures()[0].bytes;
    assert!(dir.openssh_verifies("id.pub", blob));
    // Ed25519 is deterministic: they are the same bytes.
    assert_eq!(*blob, theirs.signatures()[0].bytes);
}

#[test]
fn the_same_signatures_are_refused_here_and_there() {
    let dir = Dir::new();
    let signer = open(&dir.keygen(&["-t", "ed25519"], "id", ""));
    dir.keygen(&["-t", "ed25519"], "other", "");
    dir.keygen(&["-t", "rsa", "-b", "2048"], "rsa", "");
    dir.keygen(&["-t", "ecdsa"], "ecdsa", "");
    for (key, namespace) in [
        ("id", "git"),
        ("id", "file"),
        ("id", "consign2"),
        ("other", "consign"),
        ("rsa", "consign"),
        ("ecdsa", "consign"),
    ] {
        let blob = dir.openssh_signature(key, namespace);
        assert!(!dir.openssh_verifies("id.pub", &blob), "{key} {namespace}");
        assert!(!verifies(&with(blob), signer.public(), Scheme::Sshsig), "{key} {namespace}");
    }
    let blob = dir.openssh_signature("id", "consign");
    for position in 0..blob.len() {
        let mut flipped = blob.clone();
        flipped[position] ^= 0x01;
        assert!(!verifies(&with(flipped), signer.public(), Scheme::Sshsig), "byte {position}");
        assert!(!verifies(&with(blob[..position].to_vec()), signer.public(), Scheme::Sshsig), "{position}");
    }
    let mut longer = blob;
    longer.push(0);
    assert!(!verifies(&with(longer), signer.public(), Scheme::Sshsig));
}

#[test]
fn an_openssh_key_with_a_passphrase_is_opened_when_it_signs() {
    let dir = Dir::new();
    for cipher in ["aes256-ctr", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        let key = dir.keygen(&["-t", "ed25519", "-Z", cipher, "-a", "2"], "id", "correct horse");
        let signer = Signer::open(&key.clone().into(), &passphrase(&dir, "correct horse")).unwrap();
        let envelope = sign(STATEMENT_TYPE, PAYLOAD.to_vec(), [&signer]).unwrap();
        assert!(dir.openssh_verifies("id.pub", &envelope.signatures()[0].bytes), "{cipher}");

        // Whose it is, is known without the passphrase.
        let wrong = Signer::open(&key.clone().into(), &passphrase(&dir, "wrong horse")).unwrap();
        assert_eq!(wrong.public(), signer.public());
        let failure = wrong.sign(STATEMENT_TYPE, PAYLOAD).unwrap_err();
        assert!(failure.what.contains("does not open"), "{failure}");
        std::fs::remove_file(key).unwrap();
    }
}

#[test]
fn keys_that_cannot_sign_say_what_to_do() {
    let dir = Dir::new();
    let rsa = dir.keygen(&["-t", "rsa", "-b", "2048"], "rsa", "");
    assert!(refused(&rsa).contains("ssh-keygen -t ed25519"), "{}", refused(&rsa));
    let public = dir.path("rsa.pub");
    assert!(refused(&public).contains("type ssh-rsa"), "{}", refused(&public));
    dir.run("ssh-keygen", &["-q", "-p", "-m", "PEM", "-f", "rsa", "-N", ""], b"");
    assert!(refused(&rsa).contains("no key that consign knows"), "{}", refused(&rsa));
    let own = r#"{"format":"consign-public-key-v1","scheme":"ed25519","owner":"ada","public":""}"#;
    let own = dir.write("ada.pub", own);
    assert!(refused(&own).contains("signs nothing"), "{}", refused(&own));
    let newer = dir.write("new.key", r#"{"format":"consign-key-v9","pin":1}"#);
    assert!(refused(&newer).contains("consign-key-v2"), "{}", refused(&newer));
    assert!(refused(&dir.write("x", "hello")).contains("consign key generate"));
    assert!(refused(&dir.write("long", [b'x'; 5000])).contains("longer than"));
    assert!(refused(&dir.path("none")).contains("--key ssh-agent:"));
}

#[test]
fn a_sealed_key_file_is_opened_by_its_passphrase_only() {
    let dir = Dir::new();
    let key = SigningKey::generate().unwrap();
    let file = SealedKeyFile::seal("ada".parse().unwrap(), &key, "correct horse".to_owned().into()).unwrap();
    let path = dir.path("ada.key");
    file.write(&path).unwrap();
    let right = Signer::open(&path.clone().into(), &passphrase(&dir, "correct horse\n")).unwrap();
    assert_eq!((right.public(), right.owner_hint().unwrap().as_str()), (&key.public(), "ada"));
    let envelope = sign(STATEMENT_TYPE, PAYLOAD.to_vec(), [&right]).unwrap();
    assert!(verifies(&envelope, &key.public(), Scheme::Ed25519));
    let wrong = Signer::open(&path.clone().into(), &passphrase(&dir, "Correct horse\n")).unwrap();
    assert!(wrong.sign(STATEMENT_TYPE, PAYLOAD).unwrap_err().what.contains("does not open"));

    // A public half that was exchanged, so that something else is put into a trust root.
    let other = SigningKey::generate().unwrap().public().to_base64();
    let text = std::fs::read_to_string(&path).unwrap();
    let exchanged = dir.write("exchanged.key", text.replace(&key.public().to_base64(), &other));
    let exchanged = Signer::open(&exchanged.into(), &passphrase(&dir, "correct horse")).unwrap();
    assert!(
        exchanged.sign(STATEMENT_TYPE, PAYLOAD).unwrap_err().what.contains("not that of its private key")
    );
    // A file that asks for more work than anybody waits for.
    let sealed =
        STANDARD.decode(text.split("\"sealed\":\"").nth(1).unwrap().trim_end_matches("\"}")).unwrap();
    let header = String::from_utf8_lossy(&sealed).into_owned();
    let line = header.lines().nth(1).unwrap();
    let harder = [line.rsplit_once(' ').unwrap().0, " 40"].concat();
    let at = header.find(line).unwrap();
    let harder = [&sealed[..at], harder.as_bytes(), &sealed[at + line.len()..]].concat();
    let text = text.replace(&STANDARD.encode(&sealed), &STANDARD.encode(harder));
    let harder = Signer::open(&dir.write("hard.key", text).into(), &passphrase(&dir, "x")).unwrap();
    let begun = Instant::now();
    harder.sign(STATEMENT_TYPE, PAYLOAD).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// The golden file of docs/formats.md: what was sealed once is opened for ever.
#[test]
fn a_sealed_key_file_of_version_2_is_read() {
    let dir = Dir::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/key-v2.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let key =
            SigningKey::from_halves(&[7; 32], &STANDARD.decode(SEVENS).unwrap().try_into().unwrap()).unwrap();
        let file = SealedKeyFile::seal("ada".parse().unwrap(), &key, "correct horse".to_owned().into());
        file.unwrap().write(&golden).unwrap();
    }
    let signer = Signer::open(&golden.into(), &passphrase(&dir, "correct horse")).unwrap();
    assert_eq!(signer.owner_hint().unwrap().as_str(), "ada");
    assert_eq!(signer.signing_key().unwrap().public().to_base64(), SEVENS);
    let envelope = sign(STATEMENT_TYPE, PAYLOAD.to_vec(), [&signer]).unwrap();
    assert!(verifies(&envelope, signer.public(), Scheme::Ed25519));
}

/// The public key of the seed of 32 sevens, base64.
const SEVENS: &str = "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";

/// An ssh-agent of our own, gone with the test.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(dir: &Dir) -> Self {
        let socket = dir.path("agent.sock");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < Duration::from_secs(10), "no ssh-agent");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        self.ssh_add(&["-q", key.to_str().unwrap()]);
    }

    fn ssh_add(&self, args: &[&str]) {
        let done = Command::new("ssh-add")
            .args(args)
            .env("SSH_AUTH_SOCK", &self.socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success(), "ssh-add {args:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn an_ssh_agent_signs() {
    let dir = Dir::new();
    let agent = Agent::start(&dir);
    let why = |wanted: &str| find_at(agent.socket.clone(), wanted).unwrap_err().to_string();
    assert!(why("id").contains("no key at all"), "{}", why("id"));
    agent.add(&dir.keygen(&["-t", "rsa", "-b", "2048"], "rsa", ""));
    assert!(why("rsa").contains("other types only"), "{}", why("rsa"));
    let id = dir.keygen(&["-t", "ed25519"], "id", "");
    agent.add(&id);
    agent.add(&dir.keygen(&["-t", "ed25519"], "second", ""));
    assert!(why("third").contains("SHA256:"), "{}", why("third"));

    let public = *open(&id).public();
    let listed = dir.run("ssh-keygen", &["-l", "-f", "id.pub"], b"");
    assert!(String::from_utf8(listed).unwrap().contains(&fingerprint(&public)));
    for wanted in ["id", fingerprint(&public).as_str()] {
        let key = find_at(agent.socket.clone(), wanted).unwrap();
        assert_eq!(key.public, public);
        let signature = key.sign(&sshsig::to_sign(&pae(STATEMENT_TYPE, PAYLOAD))).unwrap();
        let blob = sshsig::blob(&public, &signature);
        assert!(dir.openssh_verifies("id.pub", &blob));
        assert!(verifies(&with(blob), &public, Scheme::Sshsig));
    }
    let key = find_at(agent.socket.clone(), "id").unwrap();
    // Another one than a locked agent's reason, and the same answer.
    agent.ssh_add(&["-q", "-D"]);
    assert!(key.sign(b"x").unwrap_err().next.unwrap().contains("locked"));
}

#[test]
fn two_keys_with_one_comment_must_be_told_apart() {
    let dir = Dir::new();
    let agent = Agent::start(&dir);
    for name in ["a", "b"] {
        dir.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", name, "-C", "ada@laptop"], b"");
        agent.add(&dir.path(name));
    }
    let failure = find_at(agent.socket.clone(), "ada@laptop").unwrap_err();
    assert!(failure.what.contains("several") && failure.next.unwrap().contains("SHA256:"));
}

/// Answers each connection with the next of these, and the last one again.
fn false_agent(dir: &Dir, answers: Vec<Vec<u8>>) -> PathBuf {
    let socket = dir.path("false.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        let mut answer = Vec::new();
        for stream in listener.incoming() {
            answer = answers.next().unwrap_or(answer);
            let mut stream = stream.unwrap();
            let mut length = [0; 4];
            drop(stream.read_exact(&mut length));
            drop(stream.write_all(&answer));
        }
    });
    socket
}

#[test]
fn an_agent_that_lies_is_not_believed() {
    let framed = |message: &[u8]| {
        let mut bytes = Vec::new();
        sshsig::put(&mut bytes, message);
        bytes
    };
    let key = SigningKey::generate().unwrap();
    let mut list = vec![12, 0, 0, 0, 1];
    sshsig::put(&mut list, &sshsig::public_blob(&key.public()));
    sshsig::put(&mut list, b"\x1b[2Jid");
    let dir = Dir::new();

    let mut signature = Vec::new();
    sshsig::put(&mut signature, b"ssh-ed25519");
    sshsig::put(&mut signature, &key.sign(b"another message"));
    let mut answer = vec![14];
    sshsig::put(&mut answer, &signature);
    let socket = false_agent(&dir, vec![framed(&list), framed(&answer), framed(&[5]), framed(&[14, 0])]);
    let found = find_at(socket, &fingerprint(&key.public())).unwrap();
    assert_eq!(found.comment, "\\x1b[2Jid");
    assert!(found.sign(b"message").unwrap_err().what.contains("not one of that key"));
    assert!(found.sign(b"message").unwrap_err().what.contains("did not sign"));
    assert!(found.sign(b"message").unwrap_err().what.contains("did not sign"));

    for bad in [
        u32::MAX.to_be_bytes().to_vec(),
        framed(&[]),
        framed(&[12]),
        framed(&[12, 0xff, 0xff, 0xff, 0xff]),
        framed(&[12, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]),
        framed(&[list.as_slice(), &[0]].concat()),
        framed(&list)[..20].to_vec(),
        vec![],
    ] {
        let dir = Dir::new();
        find_at(false_agent(&dir, vec![bad]), "id").unwrap_err();
    }
    assert!(find_at(dir.path("nobody.sock"), "id").unwrap_err().next.unwrap().contains("ssh-add"));
}

/// As much as OpenSSH's own agent may answer, and no byte more.
#[test]
fn an_agents_answer_is_read_up_to_its_limit() {
    let key = SigningKey::generate().unwrap();
    let answer = |bytes: usize| {
        let mut list = vec![12, 0, 0, 0, 1];
        sshsig::put(&mut list, &sshsig::public_blob(&key.public()));
        let comment = "x".repeat(bytes - list.len() - 4);
        sshsig::put(&mut list, comment.as_bytes());
        let mut framed = Vec::new();
        sshsig::put(&mut framed, &list);
        framed
    };
    let find = |bytes: usize| {
        let dir = Dir::new();
        find_at(false_agent(&dir, vec![answer(bytes)]), &fingerprint(&key.public()))
    };
    assert_eq!(find(256 << 10).unwrap().public, key.public());
    assert!(find((256 << 10) + 1).unwrap_err().what.contains("too many"));
}

#[test]
fn keys_are_named_in_few_ways() {
    let name = |text: &str| text.parse::<KeyName>();
    assert_eq!(name("a.key"), Ok(KeyName::File("a.key".into())));
    assert_eq!(name("ssh-agent:ada@laptop"), Ok(KeyName::Agent("ada@laptop".into())));
    assert!(name("ssh-agent:").is_err() && name("").is_err());
    let public = |text: &str| text.parse::<PublicKeyName>().unwrap();
    assert_eq!(public("ada=x.pub").owner.unwrap().as_str(), "ada");
    assert_eq!(public("ada=ssh-agent:x").key, KeyName::Agent("x".into()));
    assert_eq!(public("dir/a=b.pub").owner, None);
    assert_eq!(public("x.pub").owner, None);
}

#[test]
fn all_keys_are_opened_in_the_order_that_they_were_given_in() {
    let dir = Dir::new();
    let paths: Vec<PathBuf> = ["b", "a"].map(|name| dir.keygen(&["-t", "ed25519"], name, "")).into();
    let names: Vec<KeyName> = paths.iter().cloned().map(Into::into).collect();
    let signers = Signer::open_all(&names, &PassphraseArgs::default()).unwrap();
    let opened: Vec<&str> = signers.iter().map(Signer::name).collect();
    assert_eq!(opened, [paths[0].to_str().unwrap(), paths[1].to_str().unwrap()]);
    assert_ne!(signers[0].public(), signers[1].public());
}

#[test]
fn a_key_that_signs_otherwise_than_the_trust_root_says_is_refused_before_it_signs() {
    let dir = Dir::new();
    let signer = open(&dir.keygen(&["-t", "ed25519"], "id", ""));
    let root = |scheme| {
        let nobody = RoleKeys { keys: vec![], threshold: 1 };
        let key = Key { scheme, public: signer.public().to_base64(), owner: "ada".parse().unwrap() };
        TrustRoot {
            version: 1,
            issued: UnixMs(1),
            expires: UnixMs(2),
            keys: [(signer.id(), key)].into(),
            root: nobody,
            roles: BTreeMap::new(),
            apps: BTreeMap::new(),
            environments: BTreeMap::new(),
            coordinators: vec![],
            revoked: vec![],
            enrolment: None,
        }
    };
    signer.check_scheme(&root(Scheme::Sshsig)).unwrap();
    let refused = signer.check_scheme(&root(Scheme::Ed25519)).unwrap_err();
    assert!(refused.what.contains(signer.name()), "{}", refused.what);
    // Whose key it is not is somebody else's question.
    let mut stranger = root(Scheme::Ed25519);
    stranger.keys.clear();
    signer.check_scheme(&stranger).unwrap();
}

#[test]
fn a_public_key_is_whose_it_says_that_it_is() {
    let dir = Dir::new();
    let key = SigningKey::generate().unwrap().public();
    let file = PublicKeyFile::new("ada".parse().unwrap(), Scheme::Ed25519, &key);
    let path = dir.write("x.pub", consign_common::json::to_vec(&file));
    let find =
        |owner: &str| PublicKeyFile::find(&format!("{owner}{}", path.display()).parse().unwrap(), None);
    assert_eq!(find("").unwrap(), file);
    assert_eq!(find("ada=").unwrap(), file);
    let refused = find("bob=").unwrap_err();
    assert!(refused.what.contains("says that it is ada's, not bob's"), "{}", refused.what);
}

#[test]
fn a_sealed_key_file_of_another_format_or_scheme_is_refused() {
    let key = SigningKey::generate().unwrap();
    let file = SealedKeyFile::seal("ada".parse().unwrap(), &key, "horse".to_owned().into()).unwrap();
    let text = String::from_utf8(consign_common::json::to_vec(&file)).unwrap();
    SealedKeyFile::parse(text.as_bytes(), "x").unwrap();
    for (old, new) in [("consign-key-v2", "consign-key-v3"), ("\"ed25519\"", "\"sshsig\"")] {
        let changed = text.replacen(old, new, 1);
        assert_ne!(changed, text);
        let refused = SealedKeyFile::parse(changed.as_bytes(), "x").unwrap_err();
        assert!(refused.what.contains("x is no consign-key-v2"), "{}", refused.what);
    }
}

#[test]
fn a_public_line_may_have_comments_around_it_and_is_bounded() {
    let dir = Dir::new();
    dir.keygen(&["-t", "ed25519"], "id", "");
    let line = std::fs::read_to_string(dir.path("id.pub")).unwrap();
    let key = public_line(line.as_bytes(), "x").unwrap();
    let commented = format!("# ada's\n\n{line}\n  \n# old\n");
    assert_eq!(public_line(commented.as_bytes(), "x").unwrap(), key);
    assert!(public_line(format!("{line}{line}").as_bytes(), "x").unwrap_err().what.contains("one line"));
    let whole = format!("{line}{}", " ".repeat(KEY_FILE_BYTES - line.len()));
    assert_eq!(public_line(whole.as_bytes(), "x").unwrap(), key);
    let long = public_line(format!("{whole} ").as_bytes(), "x").unwrap_err();
    assert!(long.what.contains("too long"), "{}", long.what);
}

#[test]
fn without_an_agent_that_is_said() {
    assert_eq!(socket(Some("/run/agent".into())).unwrap(), Path::new("/run/agent"));
    for none in [None, Some("".into())] {
        let refused = socket(none).unwrap_err();
        assert!(refused.what.contains("$SSH_AUTH_SOCK is not set"), "{}", refused.what);
    }
}
