//! Archives that harm, one rule each, written byte by byte.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::*;

/// One tar entry: header, content, padding.
fn entry(kind: u8, path: &[u8], mode: u32, target: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..path.len()].copy_from_slice(path);
    header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = kind;
    header[157..157 + target.len()].copy_from_slice(target);
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &[u8], content: &[u8]) -> Vec<u8> {
    entry(b'0', path, 0o644, b"", content)
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let body = format!(" {key}={value}\n");
    let digits = (1..5).find(|digits| (body.len() + digits).to_string().len() == *digits).unwrap();
    entry(b'x', b"pax", 0o644, b"", format!("{}{body}", body.len() + digits).as_bytes())
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = file(b"consign.toml", PLAN.as_bytes());
    entries.iter().for_each(|entry| bytes.extend_from_slice(entry));
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(entries: &[Vec<u8>]) -> Result<Built, InputError> {
    from_archive(&gzip(&tar(entries)), 0)
}

fn refusal(entries: &[Vec<u8>]) -> String {
    packed(entries).unwrap_err().to_string()
}

#[test]
fn every_harmful_entry_is_refused_with_its_name_and_the_reason() {
    for (entries, expected) in [
        (vec![file(b"../x", b"")], "entry \"../x\": `..` in the path"),
        (vec![file(b"a/../../x", b"")], "entry \"a/../../x\": `..` in the path"),
        (vec![file(b"/etc/passwd", b"")], "entry \"/etc/passwd\": absolute"),
        (vec![file(b"a//b", b"")], "entry \"a//b\": an empty or `.` component"),
        (vec![entry(b'3', b"null", 0o644, b"", b"")], "entry \"null\": a device"),
        (vec![entry(b'4', b"sda", 0o644, b"", b"")], "entry \"sda\": a device"),
        (vec![entry(b'6', b"pipe", 0o644, b"", b"")], "entry \"pipe\": a FIFO"),
        (vec![entry(b'0', b"su", 0o4755, b"", b"")], "entry \"su\": setuid or setgid"),
        (vec![entry(b'0', b"sg", 0o2755, b"", b"")], "entry \"sg\": setuid or setgid"),
        (vec![file(b"a", b"1"), file(b"a", b"2")], "entry \"a\": stands twice"),
        (vec![file(b"a", b"1"), file(b"./a", b"2")], "entry \"a\": stands twice"),
        (vec![file(b"caf\xe9", b"")], "entry \"caf\u{fffd}\": not UTF-8"),
        (vec![file(b"a\x1b[31m", b"")], "entry \"a\\u{1b}[31m\": a control character"),
        (vec![file(b"a\nb", b"")], "entry \"a\\nb\": a control character"),
        (
            vec![entry(b'2', b"l", 0o777, b"../x", b"")],
            "link \"l\" to \"../x\": the target leaves the artifact",
        ),
        (vec![entry(b'2', b"d/l", 0o777, b"../../x", b"")], "the target leaves the artifact"),
        (vec![entry(b'2', b"l", 0o777, b"a/../../x", b"")], "`..` after a name"),
        (vec![entry(b'2', b"l", 0o777, b"/etc/shadow", b"")], "no glob in the plan's `links` names it"),
        (vec![entry(b'2', b"l", 0o777, b"/usr/bin/python3/../../x", b"")], "no glob in the plan's `links`"),
        (vec![entry(b'2', b"l", 0o777, b"", b"")], "no target"),
        (vec![entry(b'2', b"l", 0o777, b"a\x07", b"")], "a control character in the target"),
        (vec![entry(b'2', b"l", 0o777, b"\xff", b"")], "its target is not UTF-8"),
        (
            vec![entry(b'2', b"d", 0o777, b"tmp2", b""), file(b"d/x", b"")],
            "entry \"d/x\": lies in \"d\", which is no directory",
        ),
        (vec![file(b"d", b""), file(b"d/x", b"")], "lies in \"d\", which is no directory"),
        (vec![entry(b'1', b"h", 0o644, b"later", b""), file(b"later", b"")], "hard link to \"later\""),
        (vec![entry(b'1', b"h", 0o644, b"/etc/shadow", b"")], "hard link to \"/etc/shadow\""),
        (vec![entry(b'1', b"h", 0o644, b"../x", b"")], "hard link to \"../x\""),
        (vec![entry(b'S', b"s", 0o644, b"", b"")], "entry \"s\": a sparse file"),
        (vec![entry(b'V', b"label", 0o644, b"", b"")], "unknown type 'V'"),
        (vec![pax("path", "../x"), file(b"x", b"")], "entry \"../x\": `..` in the path"),
        (vec![pax("size", "3"), file(b"x", b"1")], "entry \"x\": a size in an extended header"),
        (vec![pax("linkpath", "/etc"), entry(b'2', b"l", 0o777, b"ok", b"")], "link \"l\" to \"/etc\""),
        (vec![pax("path", "a"), pax("path", "b"), file(b"x", b"")], "doubled"),
        (vec![entry(b'x', b"pax", 0o644, b"", b"12 path\n"), file(b"x", b"")], "not understood"),
        (vec![entry(b'g', b"pax", 0o644, b"", b"10 path=a\n"), file(b"x", b"")], "not understood"),
        (vec![entry(b'L', b"long", 0o644, b"", &[b'a'; 70_000]), file(b"x", b"")], "too large"),
        (vec![pax("path", "x")], "it is cut off"),
        (vec![file(b"storage/x", b"")], "\"storage\" stands where the shared path \"storage\""),
        (vec![entry(b'2', b"tmp", 0o777, b"x", b"")], "on the way to the writable path \"tmp\""),
        (vec![file(b"consign.toml", b"")], "entry \"consign.toml\": stands twice"),
    ] {
        let found = refusal(&entries);
        assert!(found.contains(expected), "expected {expected:?}, found {found:?}");
    }
}

#[test]
fn what_is_harmless_is_packed() {
    let long = "d/".repeat(30) + &"n".repeat(200);
    let mut long_name = long.clone().into_bytes();
    long_name.push(0);
    let built = packed(&[
        entry(b'g', b"pax_global_header", 0o644, b"", b"24 comment=0123456789ab\n"),
        entry(b'5', b"./", 0o755, b"", b""),
        entry(b'5', b"./bin/", 0o2775, b"", b""),
        file(b"./bin/a", b"content"),
        entry(b'1', b"bin/b", 0o644, b"./bin/a", b""),
        entry(b'2', b"bin/python", 0o777, b"/usr/bin/python3.11", b""),
        entry(b'2', b"bin/up", 0o777, b"../bin/a", b""),
        pax("path", "caf\u{e9}"),
        file(b"cafe", b"x"),
        entry(b'L', b"././@LongLink", 0o644, b"", &long_name),
        file(b"short", b"y"),
    ])
    .unwrap();
    let files: Vec<_> =
        built.manifest.files().map(|(entry, size, sha256)| (entry.path.as_str(), size, sha256)).collect();
    let digest = |content: &[u8]| crate::digest::Sha256::of(content);
    let expected = [
        ("bin/a", 7, digest(b"content")),
        ("bin/b", 7, digest(b"content")),
        ("caf\u{e9}", 1, digest(b"x")),
        (long.as_str(), 1, digest(b"y")),
    ];
    assert_eq!(files, expected);
}

#[test]
fn an_archive_must_be_whole_and_nothing_more() {
    let whole = gzip(&tar(&[file(b"a", b"content")]));
    assert!(from_archive(&whole, 0).is_ok());
    let found = |bytes: &[u8]| from_archive(bytes, 0).unwrap_err().to_string();

    for cut in [20, whole.len() / 2, whole.len() - 9, whole.len() - 4, whole.len() - 1] {
        assert!(found(&whole[..cut]).contains("cut off"), "{cut}: {}", found(&whole[..cut]));
    }
    let bare = tar(&[file(b"a", b"content")]);
    let without_end = gzip(&bare[..bare.len() - 1024]);
    assert!(found(&without_end).contains("cut off"), "{}", found(&without_end));
    let half_end = gzip(&bare[..bare.len() - 512]);
    assert!(found(&half_end).contains("cut off"));
    let after_tar = gzip(&[bare.as_slice(), b"hidden"].concat());
    assert!(found(&after_tar).contains("bytes after the end of the tar"));
    assert!(found(&[whole.as_slice(), b"x"].concat()).contains("bytes after the end of the gzip member"));
    assert!(found(&[whole.as_slice(), &whole].concat()).contains("a second gzip member"));
    let mut wrong_crc = whole.clone();
    let crc = wrong_crc.len() - 8;
    wrong_crc[crc] ^= 1;
    assert!(found(&wrong_crc).contains("damaged"), "{}", found(&wrong_crc));
    assert!(found(&bare).contains("not a .tar.gz"));
    assert!(found(b"").contains("not a .tar.gz"));
    let mut wrong_sum = bare.clone();
    wrong_sum[1024 + 148] ^= 1;
    assert!(found(&gzip(&wrong_sum)).contains("damaged"));
}

#[test]
fn bombs_stop_at_the_limits() {
    let limits = ArtifactLimits {
        entries: 4,
        depth: 3,
        path_bytes: 100,
        file_bytes: 1000,
        total_bytes: 1500,
        manifest_bytes: 10_000,
    };
    let spool = tempfile::tempdir().unwrap();
    let found = |entries: &[Vec<u8>]| {
        let bytes = gzip(&tar(entries));
        read_archive(bytes.as_slice(), &identity(), &options(&limits, spool.path(), 0))
            .unwrap_err()
            .to_string()
    };
    assert!(found(&[file(b"a", &[0; 1001])]).contains("entry \"a\": more than 1000 bytes"));
    assert!(found(&[file(b"a", &[0; 900]), file(b"b", &[0; 900])]).contains("more than 1500 bytes"));
    let hard = [file(b"a", &[0; 900]), entry(b'1', b"b", 0o644, b"a", b"")];
    assert!(found(&hard).contains("more than 1500 bytes"));
    assert!(
        found(&[b"a", b"b", b"c", b"d", b"e"].map(|name| file(name, b""))).contains("more than 4 entries")
    );
    assert!(found(&[file(b"a/b/c/d", b"")]).contains("deeper than 3"));
    assert!(found(&[pax("path", &"a/".repeat(60)), file(b"a", b"")]).contains("longer than 100"));
    assert!(found(&[pax("path", &"a".repeat(300)), file(b"a", b"")]).contains("longer than 100"));
}

#[test]
fn a_directory_is_cut_from_the_front_of_every_path() {
    let mut bytes = Vec::new();
    for part in [file(b"package/consign.toml", PLAN.as_bytes()), file(b"package/lib/a.js", b"x")] {
        bytes.extend_from_slice(&part);
    }
    bytes.resize(bytes.len() + 1024, 0);
    let archive = gzip(&bytes);
    assert_eq!(paths(&from_archive(&archive, 1).unwrap().manifest), ["lib", "lib/a.js"]);
    assert!(matches!(from_archive(&archive, 0), Err(InputError::NoPlan)));
    let found = from_archive(&archive, 2).unwrap_err().to_string();
    assert!(found.contains("fewer components"), "{found}");
}

#[test]
fn a_directory_with_what_no_artifact_has_is_refused() {
    use std::os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    };
    let found = |make: &dyn Fn(&Path)| {
        let directory = tempfile::tempdir().unwrap();
        app(directory.path(), &APP);
        make(directory.path());
        from_directory(directory.path()).unwrap_err().to_string()
    };
    let socket = found(&|root| drop(UnixListener::bind(root.join("s")).unwrap()));
    assert!(socket.contains("entry \"s\": a socket"), "{socket}");
    let fifo = found(&|root| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, root.join("f"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    });
    assert!(fifo.contains("entry \"f\": a FIFO"), "{fifo}");
    let link = found(&|root| symlink("/etc/passwd", root.join("l")).unwrap());
    assert!(link.contains("link \"l\" to \"/etc/passwd\""), "{link}");
    let setuid = found(&|root| {
        fs::set_permissions(root.join("bin/start"), fs::Permissions::from_mode(0o4755)).unwrap();
    });
    assert!(setuid.contains("entry \"bin/start\": setuid"), "{setuid}");
    let name = found(&|root| fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap());
    assert!(name.contains("not UTF-8"), "{name}");
    let control = found(&|root| fs::write(root.join("a\nb"), "").unwrap());
    assert!(control.contains("entry \"a\\nb\": a control character"), "{control}");
}
