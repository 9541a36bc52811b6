//! What a migration may look like, so that two releases can serve while it runs. docs/operations/migrations.md.

use super::Tree;

/// Made before anybody served.
const FIRST: [&str; 3] = [
    "migrations/directory/0001_directory.sql",
    "migrations/shard/0001_ownership.sql",
    "migrations/shard/0002_users.sql",
];

/// What takes something away from the binaries that run, in capitals.
const TAKES_AWAY: [&str; 7] =
    ["DROP TABLE", "DROP COLUMN", "DROP FUNCTION", "DROP SCHEMA", " RENAME ", " TYPE ", "SET NOT NULL"];

const ALONE: &str = "-- no-transaction";

pub fn migrations(tree: &Tree) -> Vec<String> {
    let files = tree.iter().filter(|(path, _)| path.starts_with("migrations/") && path.ends_with(".sql"));
    files
        .filter(|(path, _)| !FIRST.contains(&path.as_str()))
        .flat_map(|(path, text)| one(path, text))
        .collect()
}

fn one(path: &str, text: &str) -> Vec<String> {
    let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".sql");
    let (number, name) = name.split_once('_').unwrap_or((name, ""));
    let sql = statements(text);
    let contracts = name.starts_with("contract_");
    let mut found = Vec::new();
    let numbered = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
    if !numbered || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        found.push(format!("{path}: a migration is called NNNN_name.sql or NNNN_contract_name.sql"));
    }
    if contracts && path.starts_with("migrations/directory/") {
        found.push(format!("{path}: the directory is only added to: no node checks its schema"));
    }
    let taken = TAKES_AWAY.iter().find(|words| !contracts && sql.contains(*words));
    if let Some(words) = taken {
        found.push(format!("{path}: {} takes something away: NNNN_contract_….sql", words.trim()));
    }
    found.extend(indexes(path, text, &sql));
    found
}

/// On a table that exists an index is built beside the traffic, alone in its file, and so that it may be tried again.
fn indexes(path: &str, text: &str, sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    let alone = text.starts_with(ALONE);
    let count = sql.split(';').filter(|statement| !statement.trim().is_empty()).count();
    if alone && (count != 1 || !sql.contains(" CONCURRENTLY IF ")) {
        found.push(format!("{path}: `{ALONE}` is for one INDEX CONCURRENTLY IF [NOT] EXISTS"));
    }
    for statement in
        sql.split(';').filter(|s| s.contains("CREATE INDEX") || s.contains("CREATE UNIQUE INDEX"))
    {
        let table = statement.split(" ON ").nth(1).and_then(|rest| rest.split([' ', '(']).next());
        let is_new = table.is_some_and(|table| sql.contains(&format!("CREATE TABLE {table} ")));
        if !is_new && !alone {
            found
                .push(format!("{path}: an index on a table that exists: {ALONE}, CREATE INDEX CONCURRENTLY"));
        }
    }
    found
}

/// Without comments, in capitals, with single blanks.
fn statements(text: &str) -> String {
    let bare = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    bare.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ").to_uppercase()
}
