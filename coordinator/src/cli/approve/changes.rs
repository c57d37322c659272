//! What is different between two artifacts: files by their digests, and the plan by its text. Pure.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::artifact::{EntryKind, Manifest, Mode};
use toml::{Table, Value};

use crate::cli::output::{FileChanges, StepChange};

/// Characters of a value of the plan.
const VALUE: usize = 60;

/// Entries by path.
pub(super) fn files(from: Option<&Manifest>, to: &Manifest) -> FileChanges {
    let (before, after) = (from.map(entries).unwrap_or_default(), entries(to));
    let paths = |of: &BTreeMap<&str, String>, keep: &dyn Fn(&str) -> bool| {
        of.keys().filter(|path| keep(path)).map(|path| (*path).to_owned()).collect()
    };
    FileChanges {
        added: paths(&after, &|path| !before.contains_key(path)),
        removed: paths(&before, &|path| !after.contains_key(path)),
        changed: paths(&after, &|path| before.get(path).is_some_and(|old| Some(old) != after.get(path))),
    }
}

/// What an entry is, as one text. Directories are not told of: they come and go with what is in them.
fn entries(manifest: &Manifest) -> BTreeMap<&str, String> {
    let described = manifest.entries.iter().filter_map(|entry| {
        let what = match &entry.kind {
            EntryKind::Dir => return None,
            EntryKind::File { mode: Mode::Plain, sha256, .. } => format!("file {sha256}"),
            EntryKind::File { mode: Mode::Executable, sha256, .. } => format!("program {sha256}"),
            EntryKind::Link { target } => format!("link {target}"),
        };
        Some((entry.path.as_str(), what))
    });
    described.collect()
}

/// Steps by name, then what else the plan says. What cannot be read as TOML was refused when it was packed.
pub(super) fn steps(from: Option<&Manifest>, to: &Manifest) -> Vec<StepChange> {
    let table = |manifest: &Manifest| manifest.plan.parse::<Table>().unwrap_or_default();
    let (before, after) = (from.map(table).unwrap_or_default(), table(to));
    let (old, new) = (named_steps(&before), named_steps(&after));
    let find = |of: &[(String, Table)], name: &str| {
        of.iter().find(|(own, _)| own == name).map(|(_, step)| step.clone())
    };
    let mut changes = Vec::new();
    for (name, step) in &new {
        match find(&old, name) {
            None => changes.push(change(name, "added", vec![what_it_does(step)])),
            Some(was) => {
                let fields = fields(&was, step);
                if !fields.is_empty() {
                    changes.push(change(name, "changed", fields));
                }
            }
        }
    }
    for (name, step) in &old {
        if find(&new, name).is_none() {
            changes.push(change(name, "removed", vec![what_it_does(step)]));
        }
    }
    let common = |of: &[(String, Table)], other: &[(String, Table)]| -> Vec<String> {
        of.iter().map(|(name, _)| name.clone()).filter(|name| find(other, name).is_some()).collect()
    };
    let (order_before, order_after) = (common(&old, &new), common(&new, &old));
    if order_before != order_after {
        changes.push(change("", "order", vec![order_after.join(", ")]));
    }
    let rest = fields(&without_steps(before), &without_steps(after));
    if from.is_some() && !rest.is_empty() {
        changes.push(change("", "plan", rest));
    }
    changes
}

fn change(step: &str, change: &str, details: Vec<String>) -> StepChange {
    StepChange { step: step.to_owned(), change: change.to_owned(), details }
}

fn named_steps(plan: &Table) -> Vec<(String, Table)> {
    let steps = plan.get("step").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = steps.iter().filter_map(|step| {
        let mut step = step.as_table()?.clone();
        let name = step.remove("name")?.as_str()?.to_owned();
        Some((name, step))
    });
    named.collect()
}

fn without_steps(mut plan: Table) -> Table {
    plan.remove("step");
    // One table of each parameter, so that what changed in it is told by its name.
    if let Some(Value::Table(params)) = plan.remove("params") {
        plan.extend(params.into_iter().map(|(name, param)| (format!("params.{name}"), param)));
    }
    plan
}

/// The kind with its value; everything else follows from the plan itself.
fn what_it_does(step: &Table) -> String {
    const KINDS: [&str; 7] = ["run", "shell", "activate", "systemd", "http", "tcp", "sleep"];
    let kind = KINDS.iter().find_map(|kind| Some((kind, step.get(*kind)?)));
    kind.map(|(kind, value)| format!("{kind} = {}", text(value))).unwrap_or_default()
}

fn fields(before: &Table, after: &Table) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |name: &&String| {
        let of = |table: &Table| table.get(*name).map_or_else(|| "(none)".to_owned(), text);
        let (was, is) = (of(before), of(after));
        // Compared whole; shown short.
        (before.get(*name) != after.get(*name)).then(|| format!("{name}: {was} -> {is}"))
    };
    names.iter().filter_map(change).collect()
}

fn text(value: &Value) -> String {
    let whole = value.to_string();
    let mut short: String = whole.chars().take(VALUE).collect();
    if short.len() < whole.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use consign_common::{artifact::Entry, digest::Sha256};

    use super::*;

    fn manifest(plan: &str, entries: &[(&str, EntryKind)]) -> Manifest {
        Manifest {
            format: "consign-manifest-v1".into(),
            app: "shop".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            platform: None,
            plan: plan.into(),
            entries: entries
                .iter()
                .map(|(path, kind)| Entry { path: (*path).to_owned(), kind: kind.clone() })
                .collect(),
        }
    }

    fn file(content: &str, mode: Mode) -> EntryKind {
        EntryKind::File { mode, size: content.len() as u64, sha256: Sha256::of(content.as_bytes()) }
    }

    #[test]
    fn files_are_told_apart_by_what_they_are() {
        let link = |target: &str| EntryKind::Link { target: target.into() };
        let old = manifest(
            "",
            &[
                ("a", file("1", Mode::Plain)),
                ("b", file("1", Mode::Plain)),
                ("c", file("1", Mode::Plain)),
                ("d", EntryKind::Dir),
                ("e", link("a")),
                ("gone", file("1", Mode::Plain)),
            ],
        );
        let new = manifest(
            "",
            &[
                ("a", file("1", Mode::Plain)),
                ("b", file("2", Mode::Plain)),
                ("c", file("1", Mode::Executable)),
                ("e", link("b")),
                ("new", file("1", Mode::Plain)),
                ("new-dir", EntryKind::Dir),
            ],
        );
        let changes = files(Some(&old), &new);
        assert_eq!(changes.added, ["new"]);
        assert_eq!(changes.removed, ["gone"]);
        assert_eq!(changes.changed, ["b", "c", "e"]);
        assert_eq!(files(None, &new).added.len(), 5);
        assert_eq!(files(Some(&new), &new), FileChanges::default());
    }

    #[test]
    fn steps_are_told_apart_by_name_and_field() {
        let old = manifest(
            "app = \"shop\"\nkeep = 5\n[params.workers]\ntype = \"int\"\ndefault = 4\n\
             [[step]]\nname = \"migrate\"\nrun = [\"bin/migrate\"]\ntimeout = \"5m\"\n\
             [[step]]\nname = \"warm\"\nshell = \"true\"\n\
             [[step]]\nname = \"activate\"\nactivate = true\n\
             [[step]]\nname = \"restart\"\nsystemd = { restart = \"shop.service\" }\n",
            &[],
        );
        let new = manifest(
            "app = \"shop\"\nkeep = 5\nconfirm = \"5m\"\n[params.workers]\ntype = \"int\"\ndefault = 8\n\
             [[step]]\nname = \"migrate\"\nrun = [\"bin/migrate\"]\ntimeout = \"10m\"\nonce = true\n\
             [[step]]\nname = \"restart\"\nsystemd = { restart = \"shop.service\" }\n\
             [[step]]\nname = \"activate\"\nactivate = true\n\
             [[step]]\nname = \"healthy\"\nhttp = { url = \"http://127.0.0.1/\" }\n",
            &[],
        );
        let told: Vec<String> = steps(Some(&old), &new)
            .into_iter()
            .map(|change| format!("{} {}: {}", change.change, change.step, change.details.join("; ")))
            .collect();
        assert_eq!(
            told,
            [
                "changed migrate: once: (none) -> true; timeout: \"5m\" -> \"10m\"",
                "added healthy: http = { url = \"http://127.0.0.1/\" }",
                "removed warm: shell = \"true\"",
                "order : migrate, restart, activate",
                "plan : confirm: (none) -> \"5m\"; params.workers: { default = 4, type = \"int\" } -> { default = 8, type = \"int\" }",
            ]
        );
        assert!(steps(Some(&old), &old).is_empty());
        assert!(steps(None, &new).iter().all(|change| change.change == "added"));
    }
}
