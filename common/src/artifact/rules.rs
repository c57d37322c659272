//! Which paths, links and entries a manifest may have. The same rules are applied when an artifact is packed, when the
//! coordinator takes it, and before a server stages it.

use std::{collections::HashSet, path::Path};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{EntryKind, MANIFEST_FORMAT, Manifest, PLAN_FILE};
use crate::{
    json::InvalidJson,
    limits::ArtifactLimits,
    name::App,
    plan::{Plan, PlanError, SharedEntry},
};

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    #[error("not a manifest: {0}")]
    Json(#[from] InvalidJson),
    #[error("not in the one form that a manifest has")]
    NotCanonical,
    #[error("format {given:?}; this consign reads {MANIFEST_FORMAT}")]
    Format { given: String },
    #[error("{entries} entries, at most {limit} are allowed")]
    TooManyEntries { entries: usize, limit: usize },
    #[error("entry {path:?}: {why}")]
    Path { path: String, why: PathRefusal },
    #[error("link {path:?} to {target:?}: {why}")]
    Link { path: String, target: String, why: LinkRefusal },
    #[error("entry {path:?} stands twice")]
    Duplicate { path: String },
    #[error("entry {path:?} is not in the order of paths")]
    Order { path: String },
    #[error("entry {path:?} lies in {parent:?}, which is no directory of the artifact")]
    NoDirectory { path: String, parent: String },
    #[error("entry {path:?} has {size} bytes, at most {limit} are allowed")]
    FileTooLarge { path: String, size: u64, limit: u64 },
    #[error("all files together have more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the plan is for {plan}, the manifest for {manifest}")]
    OtherApp { plan: App, manifest: App },
    #[error("{PLAN_FILE} is no entry of an artifact: the manifest has its text")]
    PlanIsEntry,
    #[error("{0}")]
    Plan(PlanError),
    #[error(transparent)]
    Shared(#[from] SharedEntry),
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRefusal {
    #[error("absolute")]
    Absolute,
    #[error("`..` in the path")]
    Parent,
    #[error("an empty or `.` component")]
    EmptyComponent,
    #[error("a control character")]
    ControlCharacter,
    #[error("not UTF-8")]
    NotUtf8,
    #[error("a component longer than 255 bytes")]
    LongComponent,
    #[error("longer than {0} bytes")]
    Long(usize),
    #[error("deeper than {0} directories")]
    Deep(usize),
}

/// Why a symbolic link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefusal {
    #[error("no target")]
    Empty,
    #[error("the target leaves the artifact")]
    LeavesTree,
    #[error("`..` after a name: where that leads depends on other links")]
    ParentAfterName,
    #[error("the target is absolute, and no glob in the plan's `links` names it")]
    AbsoluteNotNamed,
    #[error("a control character in the target")]
    ControlCharacter,
    #[error("a target longer than {0} bytes")]
    Long(usize),
}

pub(super) fn check(manifest: &Manifest, limits: &ArtifactLimits) -> Result<Plan, InvalidManifest> {
    if manifest.format != MANIFEST_FORMAT {
        return Err(InvalidManifest::Format { given: manifest.format.chars().take(80).collect() });
    }
    let plan = Plan::parse(&manifest.plan, PLAN_FILE).map_err(InvalidManifest::Plan)?;
    if plan.app != manifest.app {
        return Err(InvalidManifest::OtherApp { plan: plan.app, manifest: manifest.app.clone() });
    }
    entries(manifest, &plan, limits)?;
    plan.check_entries(manifest)?;
    Ok(plan)
}

fn entries(manifest: &Manifest, plan: &Plan, limits: &ArtifactLimits) -> Result<(), InvalidManifest> {
    if manifest.entries.len() > limits.entries {
        let entries = manifest.entries.len();
        return Err(InvalidManifest::TooManyEntries { entries, limit: limits.entries });
    }
    let named = named_targets(plan);
    let mut directories: HashSet<&str> = HashSet::new();
    let mut before: Option<&str> = None;
    let mut total: u64 = 0;
    for entry in &manifest.entries {
        let path = entry.path.as_str();
        check_path(path, limits).map_err(|why| InvalidManifest::Path { path: path.to_owned(), why })?;
        if path == PLAN_FILE {
            return Err(InvalidManifest::PlanIsEntry);
        }
        match before.map(|before| before.as_bytes().cmp(path.as_bytes())) {
            None | Some(std::cmp::Ordering::Less) => before = Some(path),
            Some(std::cmp::Ordering::Equal) => {
                return Err(InvalidManifest::Duplicate { path: path.to_owned() });
            }
            Some(std::cmp::Ordering::Greater) => {
                return Err(InvalidManifest::Order { path: path.to_owned() });
            }
        }
        if let Some((parent, _)) = path.rsplit_once('/')
            && !directories.contains(parent)
        {
            return Err(InvalidManifest::NoDirectory { path: path.to_owned(), parent: parent.to_owned() });
        }
        match &entry.kind {
            EntryKind::Dir => {
                directories.insert(path);
            }
            EntryKind::Link { target } => check_link(path, target, &named, limits).map_err(|why| {
                InvalidManifest::Link { path: path.to_owned(), target: target.clone(), why }
            })?,
            EntryKind::File { size, .. } => {
                if *size > limits.file_bytes {
                    let (path, limit) = (path.to_owned(), limits.file_bytes);
                    return Err(InvalidManifest::FileTooLarge { path, size: *size, limit });
                }
                total = total.saturating_add(*size);
                if total > limits.total_bytes {
                    return Err(InvalidManifest::TooLarge { limit: limits.total_bytes });
                }
            }
        }
    }
    Ok(())
}

pub(super) fn check_path(path: &str, limits: &ArtifactLimits) -> Result<(), PathRefusal> {
    if path.len() > limits.path_bytes {
        return Err(PathRefusal::Long(limits.path_bytes));
    }
    if path.starts_with('/') {
        return Err(PathRefusal::Absolute);
    }
    if path.chars().any(char::is_control) {
        return Err(PathRefusal::ControlCharacter);
    }
    let mut depth = 0;
    for component in path.split('/') {
        depth += 1;
        match component {
            ".." => return Err(PathRefusal::Parent),
            "" | "." => return Err(PathRefusal::EmptyComponent),
            long if long.len() > 255 => return Err(PathRefusal::LongComponent),
            _ => {}
        }
    }
    if depth > limits.depth { Err(PathRefusal::Deep(limits.depth)) } else { Ok(()) }
}

/// A relative target may go up first and then down. Going up starts in the link's own directory, which is a real one
/// (every parent is a directory of the manifest), so it can be counted; going down may pass other links, each of which
/// keeps this rule from its own place. A `..` after a name could go up from wherever a link leads, so there is none.
fn check_link(path: &str, target: &str, named: &GlobSet, limits: &ArtifactLimits) -> Result<(), LinkRefusal> {
    if target.is_empty() {
        return Err(LinkRefusal::Empty);
    }
    if target.len() > limits.path_bytes {
        return Err(LinkRefusal::Long(limits.path_bytes));
    }
    if target.chars().any(char::is_control) {
        return Err(LinkRefusal::ControlCharacter);
    }
    if target.starts_with('/') {
        let plain = !target.split('/').any(|component| component == "..");
        return if plain && named.is_match(Path::new(target)) {
            Ok(())
        } else {
            Err(LinkRefusal::AbsoluteNotNamed)
        };
    }
    let mut up = 0;
    let mut named_something = false;
    for component in target.split('/') {
        match component {
            ".." if named_something => return Err(LinkRefusal::ParentAfterName),
            ".." => up += 1,
            "" | "." => {}
            _ => named_something = true,
        }
    }
    if up > path.matches('/').count() { Err(LinkRefusal::LeavesTree) } else { Ok(()) }
}

/// The plan's `links`; each was checked to be a glob when the plan was read.
fn named_targets(plan: &Plan) -> GlobSet {
    let mut globs = GlobSetBuilder::new();
    for glob in
        plan.links.iter().filter_map(|link| GlobBuilder::new(link).literal_separator(true).build().ok())
    {
        globs.add(glob);
    }
    globs.build().unwrap_or_default()
}
