//! The checkout as text, and the few things that the rules look for in it.
use std::collections::BTreeMap;
use std::path::Path;

/// Path from the top of the checkout → content (empty for what is no text of ours).
pub type Tree = BTreeMap<String, String>;

/// Everything but what is built, fetched or running.
pub fn read_tree() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the checkout");
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the checkout can be read").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let skipped = ["target", ".git", ".tessera", "node_modules", "dist", "__pycache__"];
            if skipped.iter().any(|s| name == *s) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else {
                let key =
                    path.strip_prefix(root).expect("found below the root").to_string_lossy().into_owned();
                tree.insert(key, std::fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    tree
}

/// The lines of `src/**/*.rs` that are neither comment nor test: path, number, text.
pub fn code(tree: &Tree) -> impl Iterator<Item = (&str, usize, &str)> {
    let files = tree.iter().filter(|(path, _)| path.ends_with(".rs") && path.contains("/src/"));
    let files = files.filter(|(path, _)| !path.ends_with("/tests.rs") && !path.contains("/tests/"));
    files.flat_map(|(path, text)| {
        let (mut after_attribute, mut in_tests) = (false, false);
        let lines = text.lines().enumerate().filter(move |(_, line)| {
            if in_tests {
                in_tests = *line != "}";
                return false;
            }
            if *line == "#[cfg(test)]" {
                after_attribute = true;
                return false;
            }
            if after_attribute && !line.starts_with("#[") {
                after_attribute = false;
                in_tests = line.ends_with('{');
                return false;
            }
            !line.trim_start().starts_with("//")
        });
        lines.map(move |(index, line)| (path.as_str(), index + 1, line))
    })
}

pub fn markdown(tree: &Tree) -> impl Iterator<Item = (&String, &String)> {
    tree.iter().filter(|(path, _)| path.ends_with(".md"))
}

pub fn outside_fences(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// What `](…)`, `src="…"` and `srcset="…"` point at.
pub fn targets(text: &str) -> Vec<String> {
    let of = |start: &str, end: char| -> Vec<String> {
        text.split(start).skip(1).filter_map(|rest| rest.split(end).next()).map(str::to_owned).collect()
    };
    [of("](", ')'), of("src=\"", '"'), of("srcset=\"", '"')].concat()
}

pub fn resolve(from: &str, to: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in to.split('/').filter(|p| !p.is_empty() && *p != ".") {
        match part {
            ".." => parts.truncate(parts.len().saturating_sub(1)),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors that a page's headings get.
pub fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings: Vec<String> =
        outside_fences(text).lines().filter(|l| l.starts_with('#')).map(str::to_owned).collect();
    headings.into_iter().map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// Every text between single backticks of a page; of a metric without its labels.
pub fn ticked(tree: &Tree, path: &str) -> impl Iterator<Item = String> {
    let text = outside_fences(tree.get(path).map_or("", String::as_str));
    let names: Vec<String> =
        text.split('`').skip(1).step_by(2).map(|t| t.split('{').next().unwrap_or(t).to_owned()).collect();
    names.into_iter()
}
