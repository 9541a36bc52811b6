//! House rules that no compiler checks, each with a planted breach that it must find. Only `std`, no network.
//!
//! A rule takes the whole tree as text and names its breaches. To add one: write the function, put it into [`RULES`],
//! plant a breach in [`every_rule_can_fail`].
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/migrations.rs"]
mod migrations;
#[path = "tidy/tree.rs"]
mod tree;

use std::collections::BTreeSet;

use tree::{Tree, code, read_tree};

type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[(&str, Rule)] = &[
    ("imports", imports),
    ("sql", sql),
    ("redis", redis),
    ("wiring", wiring),
    ("file length", file_length),
    ("no unwrap", no_unwrap),
    ("spans take nothing", spans),
    ("protected tables", protected_tables),
    ("migrations", migrations::migrations),
    ("links", documents::links),
    ("quoted code", documents::quoted_code),
    ("metrics are documented", documents::metrics),
    ("problems are documented", documents::problems),
    ("decisions are listed", documents::decisions),
    ("bounds are tested", documents::bounds),
    ("short documents", documents::short_documents),
    ("no conflict markers", conflict_markers),
];

/// Each member, the only crates of ours that it may import, and the foreign ones that it must not.
/// Dev-dependencies are free, except in the two pure crates.
const CRATES: &[(&str, &[&str], &[&str])] = &[
    ("shard-key", &[], &["axum", "fred", "sqlx", "tokio", "chrono", "rand"]),
    ("auth-core", &["shard-key"], &["axum", "fred", "http", "hyper", "reqwest", "sqlx"]),
    ("shard-router", &["shard-key"], &["axum", "fred", "http", "hyper", "reqwest"]),
    ("auth-store", &["auth-core", "shard-key", "shard-router"], &["axum", "http", "hyper", "reqwest"]),
    ("token-verifier", &[], &["axum", "fred", "sqlx"]),
    ("devcluster", &["shard-router"], &["axum", "fred"]),
    ("fuzz", &["auth-core", "auth-input", "shard-key", "token-verifier"], &["axum", "fred", "hyper", "sqlx"]),
    ("loadtest", &[], &["axum", "fred", "sqlx"]),
    ("move-trials", &["devcluster", "shard-router"], &["axum", "fred"]),
    ("move-model", &[], &["axum", "fred", "sqlx", "tokio", "rand"]),
    ("auth-input", &["auth-core"], &["axum", "fred", "hyper", "reqwest", "sqlx", "tokio"]),
    ("auth-node", &["auth-core", "auth-input", "auth-store", "shard-key", "shard-router"], &["fred", "sqlx"]),
    ("benches", &["auth-core", "devcluster", "shard-key", "shard-router", "token-verifier"], &["fred"]),
];

/// The files of `auth-node/src` that may name state, and what of it. `app.rs` wires a serving node; the two commands
/// are small programs of their own and wire themselves; `secrets.rs` needs one pure type to describe the permanent keys.
const WIRING: [(&str, &[&str]); 4] = [
    ("auth-node/src/app.rs", &["auth_store", "shard_router"]),
    ("auth-node/src/keys_command.rs", &["auth_store"]),
    ("auth-node/src/migrate_command.rs", &["auth_store::BACKFILLS", "shard_router"]),
    ("auth-node/src/secrets.rs", &["shard_router::directory::Fingerprints"]),
];

const MAX_LINES: usize = 400;

#[test]
fn the_house_is_tidy() {
    let tree = read_tree();
    let found: Vec<String> = RULES
        .iter()
        .flat_map(|(name, rule)| rule(&tree).into_iter().map(move |b| format!("{name}: {b}")))
        .collect();
    assert!(found.is_empty(), "{} breaches of house rules:\n  {}", found.len(), found.join("\n  "));
}

#[test]
fn every_rule_can_fail() {
    let plants: [(&str, &str, &str); 22] = [
        ("imports", "auth-core/Cargo.toml", "[dependencies]\nsqlx.workspace = true\n"),
        ("imports", "auth-core/Cargo.toml", "[dev-dependencies.axum]\nversion = \"0.8\"\n"),
        ("imports", "token-verifier/Cargo.toml", "[dependencies]\nauth-core = { path = \"../auth-core\" }\n"),
        (
            "imports",
            "shard-router/Cargo.toml",
            "[target.'cfg(unix)'.dependencies]\nx = { package = \"auth-store\" }\n",
        ),
        ("imports", "new-crate/Cargo.toml", "[package]\nname = \"new-crate\"\n"),
        ("sql", "auth-node/src/planted.rs", "let n = sqlx::query(\"SELECT 1\");\n"),
        ("sql", "auth-store/src/planted.rs", "use sqlx::{Row, query_as};\n"),
        ("sql", "shard-router/src/planted.rs", "const A: &str = \"DELETE FROM shard.users\";\n"),
        ("redis", "auth-store/src/planted.rs", "use fred::clients::Client;\n"),
        ("wiring", "auth-node/src/controllers/planted.rs", "use auth_store::Store;\n"),
        ("wiring", "auth-node/src/secrets.rs", "use shard_router::Router;\n"),
        ("file length", "shard-key/src/planted.rs", &"// a line\n".repeat(MAX_LINES + 1)),
        ("no unwrap", "auth-core/src/planted.rs", "#[cfg(test)]\nmod tests;\nfn f() { g().unwrap() }\n"),
        ("spans take nothing", "auth-core/src/planted.rs", "#[instrument]\nasync fn f(password: &str) {}\n"),
        (
            "spans take nothing",
            "auth-core/src/planted.rs",
            "#[tracing::instrument(skip_all, ret)]\nfn f() {}\n",
        ),
        (
            "protected tables",
            "migrations/shard/9999.sql",
            "CREATE TABLE shard.planted (\n    bucket int PRIMARY KEY\n);\n",
        ),
        (
            "protected tables",
            "migrations/shard/9999.sql",
            "CREATE TABLE shard.planted (\n  bucket int,\n  id int PRIMARY KEY\n);\nSELECT meta.protect('shard.planted');\n",
        ),
        ("links", "docs/planted.md", "see [this](no-such-file.md)\n"),
        ("links", "docs/planted.md", "# Here\nsee [this](#there)\n"),
        (
            "quoted code",
            "docs/planted.md",
            "<!-- from interop/python/verify.py -->\n```python\nnot_there()\n```\n",
        ),
        (
            "metrics are documented",
            "auth-core/src/planted.rs",
            "metrics::gauge!(\"tessera_planted\").set(1.0);\n",
        ),
        (
            "problems are documented",
            "auth-node/src/problem.rs",
            "fn parts() {\n(S::CONFLICT,\n\"planted\", \"No.\")\n    }\n",
        ),
    ];
    let clean = read_tree();
    let more = [
        ("decisions are listed", "docs/adr/9999-planted.md", "# 9999. Planted\n".to_owned()),
        (
            "migrations",
            "migrations/shard/9999_gone.sql",
            "ALTER TABLE shard.users DROP COLUMN name;\n".to_owned(),
        ),
        ("migrations", "migrations/directory/9999_contract_gone.sql", "DROP TABLE directory.x;\n".to_owned()),
        (
            "migrations",
            "migrations/shard/9999_index.sql",
            "CREATE INDEX x ON shard.users (name);\n".to_owned(),
        ),
        (
            "migrations",
            "migrations/shard/9999_two.sql",
            "-- no-transaction\nSELECT 1; SELECT 2;\n".to_owned(),
        ),
        ("migrations", "migrations/shard/new.sql", "SELECT 1;\n".to_owned()),
        ("short documents", "ARCHITECTURE.md", "a line\n".repeat(251)),
        ("no conflict markers", "docs/planted.md", "kept\n<<<<<<< HEAD\nours\n".to_owned()),
        ("no conflict markers", "config/planted.toml", "ours = 1\n=======\ntheirs = 1\n".to_owned()),
        ("bounds are tested", "docs/bounds.md", "| a | 1 | – | 503 | `no_such_test` |\n".to_owned()),
        ("bounds are tested", "docs/bounds.md", "| a | 1 | – | 503 | none |\n".to_owned()),
        ("bounds are tested", "docs/bounds.md", "| a | 1 | `limits.no_such` | 503 | `wait` |\n".to_owned()),
    ];
    let plants = plants.into_iter().map(|(rule, path, text)| (rule, path, text.to_owned())).chain(more);
    let mut planted = BTreeSet::new();
    for (name, path, text) in plants {
        let (_, rule) = RULES.iter().find(|(known, _)| *known == name).expect("the plant names a rule");
        let mut tree = clean.clone();
        let before = rule(&tree);
        tree.insert(path.to_owned(), text.clone());
        let news: Vec<String> = rule(&tree).into_iter().filter(|b| !before.contains(b)).collect();
        assert!(!news.is_empty(), "{name} did not see {text:?} in {path}");
        planted.insert(name);
    }
    let all: BTreeSet<&str> = RULES.iter().map(|(name, _)| *name).collect();
    assert_eq!(planted, all, "a rule without a planted breach");
}

fn imports(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree {
        let Some(member) = path.strip_suffix("/Cargo.toml").filter(|m| !m.contains('/')) else { continue };
        let Some((_, ours, never)) = CRATES.iter().find(|(name, ..)| *name == member) else {
            found.push(format!("{member} has no row in CRATES: say what it may import"));
            continue;
        };
        for (kind, name) in dependencies(text) {
            let dev = kind == "dev-dependencies";
            let is_ours = CRATES.iter().any(|(known, ..)| *known == name);
            // The pure crates are pure in their tests, too: rules that need state to be tested are not rules.
            let strict = !dev || matches!(member, "shard-key" | "auth-core");
            let bad = if is_ours {
                !dev && !ours.contains(&name.as_str())
            } else {
                strict && never.contains(&name.as_str())
            };
            if bad {
                found.push(format!("{member} must not have {name} in [{kind}]"));
            }
        }
    }
    found
}

/// `(section kind, package)` of each dependency, whatever of TOML's spellings it has.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut kind = String::new();
    for line in manifest.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let parts: Vec<&str> = header.split('.').collect();
            let at = parts.iter().position(|p| p.ends_with("dependencies"));
            kind = at.map_or(String::new(), |at| parts[at].to_owned());
            if let Some(name) = at.and_then(|at| parts.get(at + 1)) {
                found.push((std::mem::take(&mut kind), (*name).to_owned()));
            }
        } else if !kind.is_empty() {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let renamed = line.split("package = \"").nth(1).and_then(|rest| rest.split('"').next());
            found.push((kind.clone(), renamed.unwrap_or(name).trim_matches('"').to_owned()));
        }
    }
    found
}

fn sql(tree: &Tree) -> Vec<String> {
    const HOMES: &[&str] = &[
        "auth-store/src/repositories/",
        "shard-router/src/",
        "devcluster/src/",
        "benches/src/",
        "move-trials/src/",
    ];
    let mut found = Vec::new();
    for (path, number, line) in code(tree) {
        let at_home = HOMES.iter().any(|home| path.starts_with(home));
        let imported = line.contains("sqlx::{") && line.contains("query");
        if !at_home && (line.contains("sqlx::query") || line.contains("sqlx::raw_sql") || imported) {
            found.push(format!("{path}:{number}: SQL outside {}", HOMES.join(", ")));
        }
        let of_users =
            ["FROM shard.", "INTO shard.", "UPDATE shard.", "JOIN shard."].iter().any(|s| line.contains(s));
        if of_users && !path.starts_with(HOMES[0]) {
            found.push(format!("{path}:{number}: a table of users outside {}", HOMES[0]));
        }
    }
    found
}

fn redis(tree: &Tree) -> Vec<String> {
    let outside = code(tree)
        .filter(|(path, _, line)| line.contains("fred::") && !path.starts_with("auth-store/src/redis"));
    outside.map(|(path, number, _)| format!("{path}:{number}: Redis outside auth-store/src/redis")).collect()
}

fn wiring(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, number, line) in code(tree).filter(|(path, ..)| path.starts_with("auth-node/src/")) {
        let allowed = WIRING.iter().find(|(file, _)| *file == path).map_or(&[][..], |(_, names)| names);
        let rest = allowed.iter().fold(line.to_owned(), |rest, name| rest.replace(name, ""));
        if ["auth_store", "shard_router"].iter().any(|state| rest.contains(state)) {
            found.push(format!("{path}:{number}: state is wired in app.rs: `{}`", line.trim()));
        }
    }
    found
}

fn file_length(tree: &Tree) -> Vec<String> {
    let rust = tree.iter().filter(|(path, _)| path.ends_with(".rs"));
    let long = rust.map(|(path, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > MAX_LINES);
    long.map(|(path, lines)| format!("{path} has {lines} lines, at most {MAX_LINES}: split it")).collect()
}

fn no_unwrap(tree: &Tree) -> Vec<String> {
    let unwraps = code(tree).filter(|(_, _, line)| line.contains(".unwrap()"));
    unwraps
        .map(|(path, number, _)| format!("{path}:{number}: .unwrap(); use expect(\"why it holds\")"))
        .collect()
}

/// What is not named does not get into a span: left to itself the attribute takes every argument, and `ret` and `err` the
/// answer.
fn spans(tree: &Tree) -> Vec<String> {
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

/// Partitions inherit the trigger of their table, and `meta` is what the trigger reads.
fn protected_tables(tree: &Tree) -> Vec<String> {
    let sql: String = tree
        .iter()
        .filter(|(path, _)| path.starts_with("migrations/shard/"))
        .map(|(_, t)| t.as_str())
        .collect();
    let calls: Vec<&str> = sql.split(';').filter(|s| s.contains("SELECT meta.protect(")).collect();
    let mut found = Vec::new();
    for statement in sql.split("CREATE TABLE ").skip(1) {
        let table = statement.split([' ', '\n', '(']).next().unwrap_or_default();
        let body = statement.split(";\n").next().unwrap_or_default();
        if !table.starts_with("shard.") || body.contains("PARTITION OF") || table.contains('%') {
            continue;
        }
        let column = body.lines().skip(1).map(str::trim).find(|l| l.starts_with("bucket "));
        if column.is_none() {
            found.push(format!("{table} has no bucket column"));
        } else if !body.contains("PRIMARY KEY (bucket") && !column.is_some_and(|c| c.contains("PRIMARY KEY"))
        {
            found.push(format!("the primary key of {table} does not begin with bucket"));
        } else if !calls.iter().any(|call| call.contains(&format!("'{table}'"))) {
            found.push(format!("{table} has a bucket and no meta.protect"));
        }
    }
    found
}

/// What an unfinished merge leaves at the beginning of a line. A heading is not underlined with seven `=` here.
fn conflict_markers(tree: &Tree) -> Vec<String> {
    let is_marker = |line: &str| {
        line == "======="
            || ["<<<<<<< ", "||||||| ", ">>>>>>> "].iter().any(|marker| line.starts_with(marker))
    };
    let lines =
        tree.iter().flat_map(|(path, text)| text.lines().enumerate().map(move |(at, line)| (path, at, line)));
    let marked = lines.filter(|(.., line)| is_marker(line));
    marked.map(|(path, at, _)| format!("{path}:{}: a merge was not finished", at + 1)).collect()
}
