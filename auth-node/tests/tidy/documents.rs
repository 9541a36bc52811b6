//! Rules about documents: that they lead somewhere, and say what the code says.
use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Tree, anchors, code, markdown, outside_fences, resolve, targets, ticked};

pub fn links(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in markdown(tree) {
        for target in targets(&outside_fences(text)) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let whole = if file.is_empty() { path.clone() } else { resolve(path, file) };
            let exists =
                tree.contains_key(&whole) || tree.keys().any(|k| k.starts_with(&format!("{whole}/")));
            if !exists {
                found.push(format!("{path}: {target} leads nowhere"));
            } else if !anchor.is_empty() && !tree.get(&whole).is_some_and(|t| anchors(t).any(|a| a == anchor))
            {
                found.push(format!("{path}: {target}: no such heading"));
            }
        }
    }
    found
}

/// A fence after `<!-- from FILE -->` stands word for word in FILE, which is tested.
pub fn quoted_code(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in markdown(tree) {
        for piece in text.split("<!-- from ").skip(1) {
            let Some((file, rest)) = piece.split_once(" -->") else { continue };
            let body = rest
                .split("```")
                .nth(1)
                .and_then(|fence| fence.split_once('\n'))
                .map_or("", |(_, body)| body);
            if body.is_empty() || !tree.get(file).is_some_and(|source| source.contains(body)) {
                found.push(format!("{path}: the code from {file} is not there any more"));
            }
        }
    }
    found
}

/// Called like metrics, and roles in PostgreSQL.
const ROLES: [&str; 2] = ["tessera_app", "tessera_stream"];

pub fn metrics(tree: &Tree) -> Vec<String> {
    let mut emitted = BTreeMap::new();
    for (path, number, line) in code(tree) {
        for name in
            line.split('"').skip(1).step_by(2).filter(|n| n.starts_with("tessera_") && !ROLES.contains(n))
        {
            emitted.entry(name.to_owned()).or_insert(format!("{path}:{number}"));
        }
    }
    let listed: BTreeSet<String> =
        ticked(tree, "docs/metrics.md").filter(|n| n.starts_with("tessera_")).collect();
    let missing = emitted.iter().filter(|(name, _)| !listed.contains(*name));
    let gone = listed.iter().filter(|name| !emitted.contains_key(*name));
    missing
        .map(|(name, at)| format!("{at}: {name} is not in docs/metrics.md"))
        .chain(gone.map(|name| format!("docs/metrics.md: nothing emits {name}")))
        .collect()
}

/// In `parts`, the names are the texts of lower-case letters and dashes alone.
pub fn problems(tree: &Tree) -> Vec<String> {
    let listed: BTreeSet<String> = ticked(tree, "docs/errors.md").collect();
    let text = tree.get("auth-node/src/problem.rs").map_or("", String::as_str);
    let parts =
        text.split("fn parts").nth(1).and_then(|rest| rest.split("\n    }\n").next()).unwrap_or_default();
    let is_name = |n: &&str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let names: Vec<&str> = parts.split('"').skip(1).step_by(2).filter(is_name).collect();
    let none = names.is_empty().then(|| "no problem was found in auth-node/src/problem.rs".to_owned());
    let missing = names.into_iter().filter(|name| !listed.contains(*name));
    missing.map(|name| format!("{name} is not in docs/errors.md")).chain(none).collect()
}

pub fn decisions(tree: &Tree) -> Vec<String> {
    let list = tree.get("docs/adr/README.md").map_or("", String::as_str);
    let files =
        tree.keys().filter_map(|path| path.strip_prefix("docs/adr/")).filter(|name| *name != "README.md");
    files
        .filter(|name| !list.contains(*name))
        .map(|name| format!("docs/adr/README.md does not list {name}"))
        .collect()
}

/// Each row of docs/bounds.md: its key is one, and its tests are functions or trials somewhere in our code.
pub fn bounds(tree: &Tree) -> Vec<String> {
    let names =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let sources: Vec<&String> =
        tree.iter().filter(|(path, _)| path.ends_with(".rs")).map(|(_, t)| t).collect();
    let is_test = |name: &String| {
        let trial = format!("add(\"{name}\"");
        let function = format!("fn {}(", name.rsplit("::").next().unwrap_or(name));
        sources.iter().any(|text| text.contains(&trial) || text.contains(&function))
    };
    let defaults = tree.get("config/default.toml").map_or("", String::as_str);
    let is_key = |key: &String| {
        let (section, name) = key.split_once('.').unwrap_or_default();
        let rest = defaults.split(&format!("[{section}]\n")).nth(1).unwrap_or_default();
        let lines = rest.lines().take_while(|line| !line.starts_with('['));
        lines.filter_map(|line| line.split_once(" = ")).any(|(known, _)| known == name)
    };
    let text = tree.get("docs/bounds.md").map_or("", String::as_str);
    let rows = text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| bound |"));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('|').map(str::trim).collect()).collect();
    let mut found = Vec::new();
    for row in &rows {
        let [_, bound, _, key, .., tests, _] = row.as_slice() else {
            found.push(format!("docs/bounds.md: a row that cannot be read: {row:?}"));
            continue;
        };
        let (keys, tests) = (names(key), names(tests));
        found.extend(
            keys.iter().filter(|key| !is_key(key)).map(|key| format!("docs/bounds.md: no key {key}")),
        );
        found.extend(tests.iter().filter(|t| !is_test(t)).map(|t| format!("docs/bounds.md: no test {t}")));
        found.extend(tests.is_empty().then(|| format!("docs/bounds.md: {bound} has no test")));
    }
    found.extend(rows.is_empty().then(|| "docs/bounds.md has no rows".to_owned()));
    found
}

pub fn short_documents(tree: &Tree) -> Vec<String> {
    let limits = [("ARCHITECTURE.md", 250), ("docs/adding-an-endpoint.md", 70)];
    let checked = limits
        .iter()
        .map(|(path, most)| (path, most, tree.get(*path).map_or(0, |text| text.lines().count())));
    let wrong = checked.filter(|(_, most, lines)| *lines == 0 || lines > *most);
    wrong.map(|(path, most, lines)| format!("{path} has {lines} lines, not 1 to {most}")).collect()
}
