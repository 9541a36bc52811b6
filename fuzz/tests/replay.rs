//! Every input that is kept runs through its target: the seeds, and what once found a fault.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fuzz::targets::TARGETS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The entries of a folder, sorted; none if there is no such folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn kept_inputs_hold() {
    for (name, target) in TARGETS {
        let seeds = entries(&folder("corpus").join(name));
        assert!(seeds.len() >= 2, "{name} has {} seeds", seeds.len());
        for path in seeds.iter().chain(&entries(&folder("regressions").join(name))) {
            eprintln!("{name}: {}", path.display());
            target(&std::fs::read(path).unwrap());
        }
    }
}

#[test]
fn every_folder_has_a_target() {
    let targets: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(targets.len() >= 15);
    for path in [entries(&folder("corpus")), entries(&folder("regressions"))].concat() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(targets.contains(name) || name == "README.md", "{name} is no target");
    }
}
