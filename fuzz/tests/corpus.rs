//! The token corpus in `interop/corpus` is what the program writes, and each of its lines is a case of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use fuzz::tokens::{all, document};

#[test]
fn the_file_is_what_the_program_writes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/corpus/tokens.json");
    let file = std::fs::read_to_string(path).unwrap();
    assert!(file == document(), "interop/corpus/tokens.json is not current: make corpus");
}

#[test]
fn no_case_stands_twice() {
    let cases = all();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let tokens: BTreeSet<&str> = cases.iter().map(|case| case.token.as_str()).collect();
    assert_eq!((names.len(), tokens.len()), (cases.len(), cases.len()));
    assert!(cases.iter().filter(|case| case.verifier.is_some() && case.node.is_some()).count() >= 500);
}
