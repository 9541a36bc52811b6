//! House rules that no compiler checks, each with a planted breach that it must find. Only `std`, no network.
//!
//! A rule takes the whole tree as text and names its breaches. To add one: write the function, put it into [`RULES`],
//! plant a breach in [`every_rule_can_fail`].
#[path = "tidy/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use tree::{Tree, anchors, code, markdown, outside_fences, read_tree, resolve, targets, ticked};

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
    ("links", links),
    ("quoted code", quoted_code),
    ("metrics are documented", metrics),
    ("problems are documented", problems),
    ("decisions are listed", decisions),
    ("bounds are tested", bounds),
    ("short documents", short_documents),
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
    ("loadtest", &[], &["axum", "fred", "sqlx"]),
    ("move-trials", &["devcluster", "shard-router"], &["axum", "fred"]),
    ("move-model", &[], &["axum", "fred", "sqlx", "tokio", "rand"]),
    ("auth-node", &["auth-core", "auth-store", "shard-key", "shard-router"], &["fred", "sqlx"]),
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
        ("short documents", "ARCHITECTURE.md", "a line\n".repeat(251)),
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
    const HOMES: [&str; 4] = [
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

fn links(tree: &Tree) -> Vec<String> {
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
fn quoted_code(tree: &Tree) -> Vec<String> {
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

fn metrics(tree: &Tree) -> Vec<String> {
    let mut emitted = BTreeMap::new();
    for (path, number, line) in code(tree) {
        for name in
            line.split('"').skip(1).step_by(2).filter(|n| n.starts_with("tessera_") && *n != "tessera_app")
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
fn problems(tree: &Tree) -> Vec<String> {
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

fn decisions(tree: &Tree) -> Vec<String> {
    let list = tree.get("docs/adr/README.md").map_or("", String::as_str);
    let files =
        tree.keys().filter_map(|path| path.strip_prefix("docs/adr/")).filter(|name| *name != "README.md");
    files
        .filter(|name| !list.contains(*name))
        .map(|name| format!("docs/adr/README.md does not list {name}"))
        .collect()
}

/// Each row of docs/bounds.md: its key is one, and its tests are functions or trials somewhere in our code.
fn bounds(tree: &Tree) -> Vec<String> {
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

fn short_documents(tree: &Tree) -> Vec<String> {
    let limits = [("ARCHITECTURE.md", 250), ("docs/adding-an-endpoint.md", 70)];
    let checked = limits
        .iter()
        .map(|(path, most)| (path, most, tree.get(*path).map_or(0, |text| text.lines().count())));
    let wrong = checked.filter(|(_, most, lines)| *lines == 0 || lines > *most);
    wrong.map(|(path, most, lines)| format!("{path} has {lines} lines, not 1 to {most}")).collect()
}
