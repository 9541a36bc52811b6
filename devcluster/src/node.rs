//! Auth nodes: their configuration file, the migrations they carry, their processes and their readiness. Nothing else
//! is known of them here: an executable, a file, and two addresses.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::home::Home;
use crate::plan::{Kind, Part};
use crate::postgres::{ADMIN, APP, DATABASE};
use crate::process::ProcessId;
use crate::site::Site;
use crate::spec::{ClusterSpec, Override};

const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
const PROBE_LIMIT: Duration = Duration::from_secs(2);
const POOL_SIZE: u16 = 16;
/// Small in the local profile, so that a rotation can be watched.
const JWKS_MAX_AGE_S: u16 = 10;
const KEY_LEAD_S: u16 = 75;

type Tables = BTreeMap<String, BTreeMap<String, String>>;

/// Writes the configuration files of all nodes. Without any, one is written for `migrate` all the same.
pub(crate) fn write_configs(spec: &ClusterSpec, home: &Home, parts: &[Part]) -> Result<()> {
    for part in parts {
        if let Kind::Node { number } = part.kind {
            let file = home.node_config(&part.name);
            let text = configuration(spec, home, parts, part, number);
            std::fs::write(&file, text).could_not(format_args!("write {}", file.display()))?;
        }
    }
    Ok(())
}

/// Runs `auth-node migrate` to its end.
pub(crate) async fn migrate(site: &Site, node: &Part) -> Result<()> {
    let mut command = tokio::process::Command::from(Command::new(executable(site)?));
    command
        .arg("--config")
        .arg(site.home.node_config(&node.name))
        .arg("migrate")
        .env_remove("TESSERA_CONFIG");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.could_not("run auth-node migrate")?;
    let log = site.home.log("migrate");
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    std::fs::write(&log, &text).could_not(format_args!("write {}", log.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(site.did_not_start("migrate", "failed"))
}

/// Starts a node.
pub(crate) fn start(site: &Site, part: &Part) -> Result<ProcessId> {
    let config = site.home.node_config(&part.name);
    let program = executable(site)?.display().to_string();
    site.launch(part, vec![program, "--config".into(), config.display().to_string(), "serve".into()])
}

/// Waits until the node says on its ops listener that it is ready.
pub(crate) async fn wait_ready(site: &Site, part: &Part, process: &ProcessId) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while !is_ready(part).await {
        if !process.is_alive() {
            return Err(site.did_not_start(&part.name, "ended at once"));
        }
        if Instant::now() >= deadline {
            return Err(site.did_not_start(&part.name, "was not ready in time"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// `GET /health/ready` on the ops listener.
pub(crate) async fn is_ready(part: &Part) -> bool {
    let url = format!("{}/health/ready", url(part.second_port.unwrap_or_default()));
    let Ok(client) = reqwest::Client::builder().no_proxy().timeout(PROBE_LIMIT).build() else { return false };
    client.get(url).send().await.is_ok_and(|response| response.status().is_success())
}

/// An address of this machine.
pub(crate) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn executable(site: &Site) -> Result<&Path> {
    site.auth_node.as_deref().ok_or_else(|| Error::new("no auth-node executable was given"))
}

fn configuration(spec: &ClusterSpec, home: &Home, parts: &[Part], node: &Part, number: u16) -> String {
    let mut tables = base(home, parts, node);
    if !spec.production_limits {
        lift_limits(&mut tables);
    }
    merge(&mut tables, &spec.overrides, number);
    let mut text = String::from("# Written by devcluster at every up.\n");
    for (section, keys) in tables {
        text += &format!("\n[{section}]\n");
        text.extend(keys.iter().map(|(key, value)| format!("{key} = {value}\n")));
    }
    text
}

/// What every node is told. All carry the first node's public address: one issuer, whoever answers.
fn base(home: &Home, parts: &[Part], node: &Part) -> Tables {
    let first = parts.iter().find(|part| matches!(part.kind, Kind::Node { number: 1 })).unwrap_or(node);
    let directory = parts.iter().find(|part| part.kind == Kind::Directory).map_or(0, |part| part.port);
    let redis = parts.iter().filter(|part| matches!(part.kind, Kind::Redis { .. }));
    let redis: Vec<String> = redis.map(|part| text(&format!("127.0.0.1:{}", part.port))).collect();
    let nodes = parts.iter().filter(|part| matches!(part.kind, Kind::Node { .. })).count();
    let listen = |port: u16| text(&format!("127.0.0.1:{port}"));
    let path = |path: &Path| text(&path.display().to_string());
    let rows = [
        ("server", "listen", listen(node.port)),
        ("server", "ops_listen", listen(node.second_port.unwrap_or_default())),
        ("server", "public_url", text(&url(first.port))),
        ("server", "allowed_hosts", hosts(node.port)),
        ("server", "trusted_proxies", "[\"127.0.0.0/8\"]".into()),
        ("server", "state_dir", path(&home.node_state(&node.name))),
        ("secrets", "dir", path(&home.secrets())),
        ("directory", "host", text("127.0.0.1")),
        ("directory", "port", directory.to_string()),
        ("directory", "dbname", text(DATABASE)),
        ("postgres", "user", text(APP)),
        ("postgres", "admin_user", text(ADMIN)),
        ("postgres", "pool_size", POOL_SIZE.to_string()),
        ("limits", "nodes", nodes.max(1).to_string()),
        ("redis", "nodes", format!("[{}]", redis.join(", "))),
        ("tokens", "jwks_max_age_s", JWKS_MAX_AGE_S.to_string()),
        ("tokens", "key_lead_s", KEY_LEAD_S.to_string()),
    ];
    let mut tables = Tables::new();
    for (section, key, value) in rows {
        tables.entry(section.into()).or_default().insert(key.into(), value);
    }
    tables
}

/// The names of this machine with a node's port. Other nodes' public address is the first one's.
fn hosts(port: u16) -> String {
    let names = ["127.0.0.1", "localhost", "[::1]"].map(|name| text(&format!("{name}:{port}")));
    format!("[{}]", names.join(", "))
}

/// Load tests and demos come from one address, and from few sessions. What is counted for an account stays.
fn lift_limits(tables: &mut Tables) {
    let limits = tables.entry("limits".into()).or_default();
    limits.insert("address_limits".into(), false.to_string());
    limits.insert("refreshes_per_session".into(), 0.to_string());
}

fn merge(tables: &mut Tables, overrides: &[Override], number: u16) {
    for change in overrides.iter().filter(|change| change.node.is_none_or(|node| node == number)) {
        tables.entry(change.section.clone()).or_default().insert(change.key.clone(), change.value.clone());
    }
}

/// A TOML basic string.
fn text(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Ports;

    #[test]
    fn the_file_has_what_was_agreed_and_what_was_overridden() {
        let spec = ClusterSpec::default()
            .ports(Ports::Fixed)
            .node_config("postgres", "pool_size", "4")
            .node_config_of(2, "tokens.extra", "x", "\"y\"");
        let parts = crate::plan::plan(&spec, None).unwrap();
        let node = |name: &str| parts.iter().find(|part| part.name == name).unwrap();
        let home = Home::new("/a \"b\"");
        let second = configuration(&spec, &home, &parts, node("node-2"), 2);
        for line in [
            "listen = \"127.0.0.1:3012\"",
            "ops_listen = \"127.0.0.1:3013\"",
            "public_url = \"http://127.0.0.1:3002\"",
            "allowed_hosts = [\"127.0.0.1:3012\", \"localhost:3012\", \"[::1]:3012\"]",
            "pool_size = 4",
            "address_limits = false",
            "nodes = 2",
            "[tokens.extra]",
            "x = \"y\"",
            "dir = \"/a \\\"b\\\"/secrets\"",
        ] {
            assert!(second.lines().any(|found| found == line), "{line} is not in {second}");
        }
        let first = configuration(&spec, &home, &parts, node("node-1"), 1);
        assert!(!first.contains("tokens.extra"));
        let kept = configuration(&spec.production_limits(true), &home, &parts, node("node-1"), 1);
        assert!(first.contains("refreshes_per_session = 0") && !kept.contains("refreshes_per_session"));
        assert!(!kept.contains("address_limits"));
    }
}
