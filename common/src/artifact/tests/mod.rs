//! Packing what people have, refusing what harms, and one form as bytes.

mod archives;
mod packs;
mod tools;

use std::{fs, path::Path};

use super::*;
use crate::limits::ArtifactLimits;

const PLAN: &str = "app = \"shop\"\nlinks = [\"/usr/bin/python3*\"]\nshared = [\"storage\"]\nwritable = [\"tmp\"]\n\n\
                    [[step]]\nname = \"activate\"\nactivate = true\n";

fn identity() -> Identity {
    Identity { version: "1.2.0".parse().unwrap(), platform: None }
}

fn options<'a>(limits: &'a ArtifactLimits, spool: &'a Path, strip_components: usize) -> Options<'a> {
    Options { plan: None, strip_components, limits, spool }
}

fn from_directory(path: &Path) -> Result<Built, InputError> {
    let spool = tempfile::tempdir().unwrap();
    read_directory(path, &identity(), &options(&ArtifactLimits::default(), spool.path(), 0))
}

fn from_archive(bytes: &[u8], strip: usize) -> Result<Built, InputError> {
    let spool = tempfile::tempdir().unwrap();
    read_archive(bytes, &identity(), &options(&ArtifactLimits::default(), spool.path(), strip))
}

fn pack_of(built: &mut Built) -> Vec<u8> {
    let mut pack = Vec::new();
    built.write_pack(&mut pack).unwrap();
    pack
}

/// A small app as a person has it on disk, made in the given order of names.
fn app(directory: &Path, names: &[&str]) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for name in names {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match *name {
            "bin/start" => {
                fs::write(&path, "#!/bin/sh\n").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o775)).unwrap();
            }
            "bin/latest" => symlink("start", &path).unwrap(),
            "consign.toml" => fs::write(&path, PLAN).unwrap(),
            other => fs::write(&path, other.repeat(1000)).unwrap(),
        }
    }
}

const APP: [&str; 6] = ["consign.toml", "bin/start", "bin/latest", "lib/a-b.js", "lib/a/index.js", "lib.js"];
const APP_ENTRIES: [&str; 8] =
    ["bin", "bin/latest", "bin/start", "lib", "lib.js", "lib/a", "lib/a-b.js", "lib/a/index.js"];

fn paths(manifest: &Manifest) -> Vec<&str> {
    manifest.entries.iter().map(|entry| entry.path.as_str()).collect()
}

/// Keeps everything, for looking at it.
#[derive(Default)]
struct Collect(Vec<(String, Vec<u8>)>);

impl Sink for Collect {
    fn begin(&mut self, entry: &Entry) -> std::io::Result<()> {
        self.0.push((entry.path.clone(), Vec::new()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.last_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
