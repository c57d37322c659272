//! What is published: a packed artifact, or a directory or archive that is packed on the way.

use std::path::{Path, PathBuf};

use consign_common::{
    artifact::{self, ArtifactFile, Options},
    digest::Sha256,
    limits::ArtifactLimits,
    name::{Platform, Version},
};

use super::pack;
use crate::cli::failure::{Doing, Failure, Result};

/// An artifact file, and what must live as long as it.
pub(super) struct Input {
    pub(super) file: ArtifactFile,
    /// Where it is, for the thread that sends it.
    pub(super) path: PathBuf,
    pub(super) pack_sha256: Sha256,
    _packed: Option<tempfile::TempDir>,
}

/// What an artifact is called beyond what its plan says, as the command line gives it.
pub(super) struct Called {
    pub(super) version: Option<Version>,
    pub(super) platform: Option<Platform>,
    pub(super) strip_components: usize,
    pub(super) plan: Option<PathBuf>,
}

pub(super) fn open(path: &Path, called: Called) -> Result<Input> {
    let limits = ArtifactLimits::default();
    if path.extension().is_some_and(|ending| ending == "consign") {
        if called.version.is_some()
            || called.platform.is_some()
            || called.strip_components > 0
            || called.plan.is_some()
        {
            return Err(Failure::usage(format!(
                "{} has its version, platform and plan already",
                path.display()
            ))
            .next("leave --version, --platform, --strip-components and --plan away"));
        }
        return whole(path.to_owned(), None, &limits);
    }
    let version = called.version.ok_or_else(|| {
        Failure::usage("which version is it?")
            .next("give --version V, or publish a file that `consign artifact pack` made")
    })?;
    let plan = called.plan.as_deref().map(pack::plan_from).transpose()?;
    let spool = tempfile::tempdir().doing(|| "failed to make a temporary directory".into())?;
    let identity = artifact::Identity { version, platform: called.platform };
    let options =
        Options { plan, strip_components: called.strip_components, limits: &limits, spool: spool.path() };
    let mut built = pack::build(path, &identity, &options)?;
    let packed = spool.path().join("artifact.consign");
    ArtifactFile::write(&packed, &mut built).doing(|| "failed to pack".into())?;
    whole(packed, Some(spool), &limits)
}

fn whole(path: PathBuf, packed: Option<tempfile::TempDir>, limits: &ArtifactLimits) -> Result<Input> {
    let mut file = ArtifactFile::open(&path, limits).doing(|| "failed to read the artifact".into())?;
    file.verify(limits).doing(|| "the artifact is damaged".into())?;
    let mut pack = file.pack().doing(|| "failed to read the artifact".into())?;
    let (pack_sha256, _) = Sha256::of_reader(&mut pack).at("read", &path)?;
    drop(pack);
    Ok(Input { file, path, pack_sha256, _packed: packed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "app = \"shop\"\n\n[[step]]\nname = \"activate\"\nactivate = true\n";

    fn called(version: Option<&str>) -> Called {
        let version = version.map(|version| version.parse().unwrap());
        Called { version, platform: None, strip_components: 0, plan: None }
    }

    #[test]
    fn a_directory_and_its_packed_file_are_one_artifact() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("shop");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("consign.toml"), PLAN).unwrap();
        std::fs::write(source.join("index.html"), "hello").unwrap();
        let input = open(&source, called(Some("1.0.0"))).unwrap();
        assert_eq!(input.file.manifest().app.as_str(), "shop");

        let packed = dir.path().join("shop.consign");
        std::fs::copy(&input.path, &packed).unwrap();
        let again = open(&packed, called(None)).unwrap();
        assert_eq!((again.file.digest(), again.pack_sha256), (input.file.digest(), input.pack_sha256));
        assert_eq!(again.file.pack_length(), input.file.pack_length());
    }

    #[test]
    fn what_is_missing_or_too_much_is_said() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("consign.toml"), PLAN).unwrap();
        let failure = open(dir.path(), called(None)).err().unwrap();
        assert!(failure.next.unwrap().contains("--version"));
        let failure = open(&dir.path().join("shop.consign"), called(Some("1"))).err().unwrap();
        assert!(failure.what.contains("version, platform and plan already"));
        let failure = open(&dir.path().join("missing.tar.gz"), called(Some("1"))).err().unwrap();
        assert!(failure.what.contains("missing.tar.gz"));
    }
}
