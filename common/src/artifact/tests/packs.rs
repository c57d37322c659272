//! One form as bytes; round trips; one flipped byte anywhere.

use proptest::prelude::*;

use super::*;
use crate::digest::Sha256;

fn built() -> Built {
    let directory = tempfile::tempdir().unwrap();
    app(directory.path(), &APP);
    from_directory(directory.path()).unwrap()
}

fn checked(pack: &[u8], manifest: &Manifest) -> Result<(), PackError> {
    extract(&mut &*pack, manifest, &ArtifactLimits::default(), &mut Discard)
}

/// The formats of docs/formats.md. A manifest that changes is a new format: existing signatures are over these bytes. The
/// pack's frames may change with zstd's version, never what they decompress to.
#[test]
fn manifest_and_pack_are_the_golden_bytes() {
    let mut built = built();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let compare = |name: &str, bytes: &[u8]| {
        let path = golden.join(name);
        if std::env::var_os("CONSIGN_WRITE_GOLDEN").is_some() {
            fs::create_dir_all(&golden).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        let expected = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(expected == bytes, "{} differs: {}", path.display(), String::from_utf8_lossy(bytes));
    };
    compare("manifest.golden", &built.manifest.to_bytes());
    compare("pack.golden", &pack_of(&mut built));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.consign");
    ArtifactFile::write(&path, &mut built).unwrap();
    compare("artifact.golden", &fs::read(path).unwrap());
}

#[test]
fn modes_and_order_are_normalized() {
    let built = built();
    assert_eq!(paths(&built.manifest), APP_ENTRIES);
    let mode = |path: &str| {
        let entry = built.manifest.entries.iter().find(|entry| entry.path == path).unwrap();
        let EntryKind::File { mode, .. } = &entry.kind else { panic!("{entry:?}") };
        *mode
    };
    assert_eq!((mode("bin/start"), mode("lib.js")), (Mode::Executable, Mode::Plain));
    assert_eq!(built.manifest.plan, PLAN);
}

#[test]
fn a_manifest_with_anything_more_or_otherwise_written_is_refused() {
    let text = String::from_utf8(built().manifest.to_bytes()).unwrap();
    let limits = ArtifactLimits::default();
    assert!(Manifest::parse(text.as_bytes(), &limits).is_ok());
    let digest = Sha256::of(b"");
    for (from, to, expected) in [
        ("\"kind\":\"dir\"", "\"kind\":\"dir\",\"owner\":\"root\"", "unknown field `owner`"),
        ("\"kind\":\"dir\"", "\"kind\":\"dir\",\"mode\":\"0755\"", "a dir has nothing more"),
        ("\"kind\":\"dir\"", "\"kind\":\"dir\",\"mode\":null", "one form"),
        ("\"kind\":\"dir\"", "\"kind\":\"device\"", "unknown variant"),
        ("\"kind\":\"dir\"", "\"kind\": \"dir\"", "one form"),
        ("\"mode\":\"0755\"", "\"mode\":\"4755\"", "unknown variant"),
        ("\"version\":\"1.2.0\"", "\"version\":\"1.2.0\",\"extra\":1", "unknown field `extra`"),
        ("consign-manifest-v1", "consign-manifest-v2", "format \"consign-manifest-v2\""),
        ("\"path\":\"lib.js\"", "\"path\":\"../lib.js\"", "`..` in the path"),
        ("\"path\":\"lib.js\"", "\"path\":\"lib\"", "stands twice"),
        ("\"path\":\"lib.js\"", "\"path\":\"a\"", "order of paths"),
        ("\"path\":\"lib.js\"", "\"path\":\"lib.d/x\"", "which is no directory"),
        ("\"target\":\"start\"", "\"target\":\"../../start\"", "leaves the artifact"),
        ("\"app\":\"shop\"", "\"app\":\"blog\"", "the plan is for shop"),
        ("activate = true", "activate = 1", "`activate` must be"),
        ("\"size\":6000", "\"size\":9000000000000", "at most"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let error = Manifest::parse(changed.as_bytes(), &limits).expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    assert!(Manifest::parse(format!("{text} ").as_bytes(), &limits).is_err());
    assert!(!text.contains(&digest.to_string()));
}

#[test]
fn one_flipped_byte_anywhere_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.consign");
    ArtifactFile::write(&path, &mut built()).unwrap();
    let whole = fs::read(&path).unwrap();
    let limits = ArtifactLimits::default();
    let check = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        ArtifactFile::open(&path, &limits).and_then(|mut file| file.verify(&limits))
    };
    check(&whole).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(check(&changed).is_err(), "byte {at}");
    }
    for length in [0, 7, 8, 19, 20, 100, whole.len() - 33, whole.len() - 1] {
        assert!(check(&whole[..length]).is_err(), "{length} bytes");
    }
    assert!(
        check(&[whole.as_slice(), b"x"].concat()).unwrap_err().to_string().contains("bytes after the end")
    );
}

#[test]
fn a_pack_is_of_its_artifact_alone_and_of_no_other_kind() {
    let mut built = built();
    let pack = pack_of(&mut built);
    let mut other = built.manifest.clone();
    other.version = "1.3.0".parse().unwrap();
    assert!(matches!(checked(&pack, &other), Err(PackError::OtherArtifact { .. })));
    let mut delta = pack.clone();
    delta[12] = 1;
    assert!(matches!(checked(&delta, &built.manifest), Err(PackError::Delta { .. })));
    let mut newer = pack.clone();
    newer[8] = 2;
    assert!(matches!(checked(&newer, &built.manifest), Err(PackError::Version { given: 2 })));
}

/// A pack whose segment holds `frame`, whatever it is, with all outer lengths and the checksum right.
fn forged(built: &Built, raw: u32, frame: &[u8]) -> Vec<u8> {
    let mut pack = b"CNSGPACK".to_vec();
    pack.extend_from_slice(&1u32.to_le_bytes());
    pack.extend_from_slice(&[0; 32]);
    pack.extend_from_slice(built.manifest.digest().as_bytes());
    pack.extend_from_slice(&built.manifest.total_bytes().to_le_bytes());
    pack.extend_from_slice(&1u32.to_le_bytes());
    pack.extend_from_slice(&raw.to_le_bytes());
    pack.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_le_bytes());
    pack.extend_from_slice(&[0; 12]);
    pack.extend_from_slice(frame);
    let digest = Sha256::of(&pack);
    pack.extend_from_slice(digest.as_bytes());
    pack
}

#[test]
fn a_forged_pack_is_stopped_by_what_the_manifest_says() {
    let built = built();
    let total = usize::try_from(built.manifest.total_bytes()).unwrap();
    let raw = u32::try_from(total).unwrap();
    let frame = |length: usize| zstd::encode_all(vec![0; length].as_slice(), 3).unwrap();
    let found = |raw: u32, frame: &[u8]| checked(&forged(&built, raw, frame), &built.manifest).unwrap_err();
    assert!(matches!(found(raw, &frame(total)), PackError::Content { .. }));
    // A bomb: far more than the manifest's files, in a frame or announced.
    assert!(matches!(found(u32::MAX, &frame(1 << 26)), PackError::Segment { .. }));
    assert!(matches!(found(raw, &frame(total - 1)), PackError::Content { .. } | PackError::Segment { .. }));
    assert!(matches!(found(raw, b"not zstd"), PackError::Zstd { .. }));
    assert!(matches!(found(raw, &[]), PackError::Zstd { .. } | PackError::Segment { .. }));
    let mut wide = zstd::Encoder::new(Vec::new(), 3).unwrap();
    wide.window_log(27).unwrap();
    std::io::copy(&mut vec![0u8; total].as_slice(), &mut wide).unwrap();
    assert!(
        matches!(found(raw, &wide.finish().unwrap()), PackError::Zstd { .. }),
        "a window that costs memory"
    );
}

#[test]
fn an_export_packs_to_the_same_artifact() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.consign");
    let mut built = built();
    ArtifactFile::write(&path, &mut built).unwrap();
    let limits = ArtifactLimits::default();
    let mut artifact = ArtifactFile::open(&path, &limits).unwrap();
    assert_eq!(artifact.digest(), built.manifest.digest());
    let (one, two) = (directory.path().join("1.tar.gz"), directory.path().join("2.tar.gz"));
    export(&mut artifact, &one, &limits).unwrap();
    export(&mut artifact, &two, &limits).unwrap();
    let bytes = fs::read(one).unwrap();
    assert_eq!(bytes, fs::read(two).unwrap());
    assert_eq!(from_archive(&bytes, 0).unwrap().manifest, built.manifest);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_on_disk_gives_the_same_bytes(order in Just(APP.to_vec()).prop_shuffle()) {
        let directory = tempfile::tempdir().unwrap();
        app(directory.path(), &order);
        let mut shuffled = from_directory(directory.path()).unwrap();
        prop_assert_eq!(pack_of(&mut shuffled), pack_of(&mut built()));
    }

    #[test]
    fn what_is_packed_comes_out(files in proptest::collection::btree_map(
        "[a-z]{1,8}(/[a-z]{9,12}){0,3}", proptest::collection::vec(any::<u8>(), 0..40_000), 0..12)) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("consign.toml"), PLAN).unwrap();
        let mut written = Vec::new();
        for (path, content) in files {
            let full = directory.path().join(&path);
            // A name that is a directory of another file already stays that.
            if path != "tmp" && fs::create_dir_all(full.parent().unwrap()).is_ok() && fs::write(&full, &content).is_ok() {
                written.push((path, content));
            }
        }
        let mut built = from_directory(directory.path()).unwrap();
        let pack = pack_of(&mut built);
        let mut collected = Collect::default();
        extract(&mut pack.as_slice(), &built.manifest, &ArtifactLimits::default(), &mut collected).unwrap();
        collected.0.sort();
        written.sort();
        prop_assert_eq!(collected.0, written);
    }
}
