//! `consign artifact pack` and `export`: between what people have and the artifact file. Nothing here needs a coordinator
//! or a key.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use clap::Args;
use consign_common::{
    artifact::{self, ArtifactFile, Built, Identity, InputError, Manifest, Options},
    error::chain,
    limits::{ArtifactLimits, PLAN_BYTES},
    name::{Platform, Version},
};
use serde::Serialize;

use crate::cli::{
    failure::{Doing, Failure, Result},
    print::Printer,
    profile::read,
    text::{pairs, size},
};

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// A directory or a .tar.gz, with consign.toml at its root
    #[arg(value_name = "DIR|TGZ")]
    input: PathBuf,
    /// The artifact's version
    #[arg(long, value_name = "V")]
    version: Version,
    /// The platform it is for, as linux-x86_64; without it, any
    #[arg(long)]
    platform: Option<Platform>,
    /// Cut this many leading components from every path: 1 for npm's package/
    #[arg(long, value_name = "N", default_value_t = 0)]
    strip_components: usize,
    /// The plan, where the input has no consign.toml
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Where to [default: APP-VERSION.consign]
    #[arg(short, value_name = "OUT")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A .consign file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to [default: APP-VERSION.tar.gz]
    #[arg(short, value_name = "OUT")]
    out: Option<PathBuf>,
}

/// An artifact in a file here.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Local {
    pub(super) file: String,
    pub(super) app: String,
    pub(super) version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<String>,
    pub(super) digest: String,
    pub(super) entries: usize,
    /// Of all its files.
    pub(super) bytes: u64,
}

pub(crate) fn pack(args: PackArgs, printer: &Printer) -> Result<()> {
    let limits = ArtifactLimits::default();
    let out_directory = args.out.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
    let spool = if out_directory.as_os_str().is_empty() { Path::new(".") } else { out_directory };
    refuse_inside(&args.input, spool)?;
    let plan = args.plan.as_deref().map(plan_from).transpose()?;
    let options = Options { plan, strip_components: args.strip_components, limits: &limits, spool };
    let identity = Identity { version: args.version, platform: args.platform };
    let mut built = build(&args.input, &identity, &options)?;
    let out = args.out.unwrap_or_else(|| default_name(&built.manifest, "consign"));
    ArtifactFile::write(&out, &mut built).doing(|| "failed to pack".into())?;
    printer.show(&Local::of(&out, &built.manifest), |local| text("packed", local))
}

pub(crate) fn export(args: ExportArgs, printer: &Printer) -> Result<()> {
    let limits = ArtifactLimits::default();
    let mut file = open(&args.file, &limits)?;
    let out = args.out.unwrap_or_else(|| default_name(file.manifest(), "tar.gz"));
    artifact::export(&mut file, &out, &limits).doing(|| "failed to export".into())?;
    printer.show(&Local::of(&out, file.manifest()), |local| text("exported", local))
}

/// The input as an artifact. A plan with mistakes is shown with the lines around them.
pub(super) fn build(input: &Path, identity: &Identity, options: &Options<'_>) -> Result<Built> {
    let built = if input.is_dir() {
        artifact::read_directory(input, identity, options)
    } else {
        artifact::read_archive(File::open(input).at("open", input)?, identity, options)
    };
    built.map_err(|error| match &error {
        InputError::Plan(plan) => Failure::new(format!("the plan has mistakes\n{}", plan.render())),
        InputError::Read { .. }
        | InputError::Spool { .. }
        | InputError::Entry { .. }
        | InputError::Archive(_)
        | InputError::TooManyEntries(_)
        | InputError::TooLarge(_)
        | InputError::NoPlan
        | InputError::Manifest(_) => {
            Failure::new(format!("{} cannot be packed: {}", input.display(), chain(&error)))
        }
    })
}

pub(super) fn open(path: &Path, limits: &ArtifactLimits) -> Result<ArtifactFile> {
    ArtifactFile::open(path, limits).doing(|| "failed to read the artifact".into())
}

impl Local {
    pub(super) fn of(file: &Path, manifest: &Manifest) -> Self {
        Self {
            file: file.display().to_string(),
            app: manifest.app.to_string(),
            version: manifest.version.to_string(),
            platform: manifest.platform.as_ref().map(ToString::to_string),
            digest: manifest.digest().to_string(),
            entries: manifest.entries.len(),
            bytes: manifest.total_bytes(),
        }
    }
}

pub(super) fn text(done: &str, local: &Local) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row(done, local.file.clone()),
        row("artifact", format!("{}@{}", local.app, local.version)),
        row("digest", local.digest.clone()),
        row("content", format!("{} entries, {}", local.entries, size(local.bytes))),
    ];
    rows.extend(local.platform.clone().map(|platform| row("platform", platform)));
    pairs(&rows)
}

fn default_name(manifest: &Manifest, ending: &str) -> PathBuf {
    let platform = manifest.platform.as_ref().map(|platform| format!("-{platform}")).unwrap_or_default();
    PathBuf::from(format!("{}-{}{platform}.{ending}", manifest.app, manifest.version))
}

/// The next run would pack what this one wrote.
fn refuse_inside(input: &Path, out: &Path) -> Result<()> {
    if !input.is_dir() {
        return Ok(());
    }
    let (input, out) = (input.canonicalize().at("read", input)?, out.canonicalize().at("read", out)?);
    if out.starts_with(&input) {
        let what = format!("the artifact would be written into {}, which is packed", input.display());
        return Err(Failure::usage(what).next("give -o FILE outside of it"));
    }
    Ok(())
}

pub(super) fn plan_from(path: &Path) -> Result<(String, String)> {
    let bytes = read(path, PLAN_BYTES as u64)?;
    let text = String::from_utf8(bytes).at("read as UTF-8", path)?;
    Ok((text, path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::Format;

    const PLAN: &str = "app = \"shop\"\n\n[[step]]\nname = \"activate\"\nactivate = true\n";

    fn args(input: &Path, out: Option<PathBuf>) -> PackArgs {
        let version = "1.0.0".parse().unwrap();
        PackArgs { input: input.to_owned(), version, platform: None, strip_components: 0, plan: None, out }
    }

    #[test]
    fn what_is_packed_is_exported_and_packs_to_the_same_artifact() {
        let directory = tempfile::tempdir().unwrap();
        let (app, printer) = (directory.path().join("app"), Printer::new(Format::Json));
        std::fs::create_dir(&app).unwrap();
        std::fs::write(app.join("consign.toml"), PLAN).unwrap();
        std::fs::write(app.join("index.html"), "hello").unwrap();
        let (first, tar) = (directory.path().join("1.consign"), directory.path().join("1.tar.gz"));
        let second = directory.path().join("2.consign");
        pack(args(&app, Some(first.clone())), &printer).unwrap();
        export(ExportArgs { file: first.clone(), out: Some(tar.clone()) }, &printer).unwrap();
        pack(args(&tar, Some(second.clone())), &printer).unwrap();
        assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let (app, printer) = (directory.path().join("app"), Printer::new(Format::Text));
        std::fs::create_dir(&app).unwrap();
        let out = directory.path().join("x.consign");
        let without = pack(args(&app, Some(out.clone())), &printer).unwrap_err();
        assert!(without.what.contains("no consign.toml"), "{without}");
        std::fs::write(app.join("consign.toml"), PLAN.replace("activate = true", "activat = true")).unwrap();
        let mistaken = pack(args(&app, Some(out.clone())), &printer).unwrap_err();
        assert!(mistaken.what.contains("did you mean `activate`?"), "{mistaken}");
        assert!(mistaken.what.contains("consign.toml:5:1"), "{mistaken}");
        let inside = pack(args(&app, Some(app.join("x.consign"))), &printer).unwrap_err();
        assert!(inside.what.contains("which is packed"), "{inside}");
        assert!(!out.exists(), "nothing half-done is left");
    }
}
