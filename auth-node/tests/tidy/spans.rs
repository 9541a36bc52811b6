//! Spans of traces name what they hold.
use crate::tree::{Tree, code};

/// What is not named does not get into a span: left to itself the attribute takes every argument, and `ret` and `err` the
/// answer.
pub fn take_nothing(tree: &Tree) -> Vec<String> {
    let takes = |line: &str| {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let has = |word: &str| words.contains(&word);
        line.trim_start().starts_with("#[")
            && has("instrument")
            && (!has("skip_all") || ["ret", "err", "fields"].iter().any(|word| has(word)))
    };
    let bad = code(tree).filter(|(_, _, line)| takes(line));
    bad.map(|(path, number, _)| {
        format!("{path}:{number}: a span takes arguments; skip_all, and no ret or err")
    })
    .collect()
}
