//! Configuration: raw (as written) → validated (as used). A mistake names its key and stops the start with exit 2.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use ipnet::IpNet;
use serde::Deserialize;

/// The commented defaults, embedded.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub secrets: Secrets,
    pub directory: Directory,
    pub postgres: Postgres,
    pub redis: Redis,
    pub tokens: Tokens,
    pub sessions: Sessions,
    pub passwords: Passwords,
    pub accounts: Accounts,
    pub log: Log,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    pub ops_listen: SocketAddr,
    pub public_url: String,
    pub allowed_origins: Vec<String>,
    pub trusted_proxies: Vec<IpNet>,
    pub state_dir: PathBuf,
    pub max_connections: usize,
    pub body_max_bytes: usize,
    pub header_max_bytes: usize,
    pub request_timeout_ms: u64,
    pub keep_alive_ms: u64,
    pub drain_grace_ms: u64,
    pub drain_max_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    pub dir: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    pub host: String,
    pub port: u16,
    pub dbname: String,
    pub poll_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    pub user: String,
    pub admin_user: String,
    pub pool_size: usize,
    pub checkout_timeout_ms: u64,
    pub connect_timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub nodes: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    pub audience: Vec<String>,
    pub access_ttl_s: i64,
    pub leeway_s: i64,
    pub jwks_max_age_s: i64,
    pub key_lead_s: i64,
    pub key_rotation_s: i64,
    pub key_horizon_s: i64,
    pub key_overtime_s: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    pub idle_s: i64,
    pub absolute_s: i64,
    pub max_live: i64,
    pub replay_window_s: i64,
    pub max_replays: i16,
    pub late_replay_every: i64,
    pub cache_trust_s: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passwords {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
    pub permits: usize,
    pub wait_ms: u64,
    pub failures_per_scope: i32,
    pub failure_window_s: i64,
    pub failures_per_identifier: i32,
    pub failure_delay_ms: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    pub identifier_hold_s: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Text,
}

/// What is wrong, with the key first.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(pub String);

/// The clock difference that the key schedule allows for, and the cool-down of our verifiers, in seconds.
const SKEW_S: i64 = 30;
const VERIFIER_COOL_DOWN_S: i64 = 30;

impl Config {
    /// Reads defaults, file and environment, and checks every key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError(format!("--config: {} is not a file", file.display())));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let env = Env::prefixed("TESSERA_").ignore(&["config"]).split("__");
        let mut config: Self = figment.merge(env).extract().map_err(|e| ConfigError(describe(&e)))?;
        config.validate()?;
        if config.tokens.audience.is_empty() {
            config.tokens.audience = vec![config.server.public_url.clone()];
        }
        if config.passwords.permits == 0 {
            config.passwords.permits = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        }
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let (server, tokens, sessions, passwords) =
            (&self.server, &self.tokens, &self.sessions, &self.passwords);
        check(
            is_base_url(&server.public_url),
            "server.public_url",
            "must be http(s)://host[:port] without a trailing slash",
        )?;
        check(
            server.listen != server.ops_listen || server.listen.port() == 0,
            "server.ops_listen",
            "must differ from server.listen",
        )?;
        for origin in &server.allowed_origins {
            check(is_base_url(origin), "server.allowed_origins", "must be http(s)://host[:port] each")?;
        }
        check(
            (1..=1_000_000).contains(&server.max_connections),
            "server.max_connections",
            "must be 1 to 1000000",
        )?;
        check(
            (1024..=1 << 20).contains(&server.body_max_bytes),
            "server.body_max_bytes",
            "must be 1024 to 1048576",
        )?;
        check(
            (8192..=1 << 20).contains(&server.header_max_bytes),
            "server.header_max_bytes",
            "must be 8192 to 1048576",
        )?;
        check(server.request_timeout_ms >= 1000, "server.request_timeout_ms", "must be at least 1000")?;
        let keep_alive = 1000..=600_000;
        check(keep_alive.contains(&server.keep_alive_ms), "server.keep_alive_ms", "must be 1000 to 600000")?;
        check(self.directory.poll_ms >= 100, "directory.poll_ms", "must be at least 100")?;
        check((1..=1000).contains(&self.postgres.pool_size), "postgres.pool_size", "must be 1 to 1000")?;
        check(!self.redis.nodes.is_empty(), "redis.nodes", "must name at least one cluster node")?;
        for node in &self.redis.nodes {
            let port = node.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            check(port.is_some(), "redis.nodes", "must be host:port each")?;
        }
        check((10..=3600).contains(&tokens.access_ttl_s), "tokens.access_ttl_s", "must be 10 to 3600")?;
        check((0..=120).contains(&tokens.leeway_s), "tokens.leeway_s", "must be 0 to 120")?;
        check((1..=86400).contains(&tokens.jwks_max_age_s), "tokens.jwks_max_age_s", "must be 1 to 86400")?;
        self.validate_keys()?;
        check(
            sessions.idle_s >= 60 && sessions.idle_s <= sessions.absolute_s,
            "sessions.idle_s",
            "must be 60 to sessions.absolute_s",
        )?;
        check((1..=1000).contains(&sessions.max_live), "sessions.max_live", "must be 1 to 1000")?;
        check((0..=300).contains(&sessions.replay_window_s), "sessions.replay_window_s", "must be 0 to 300")?;
        check((0..=100).contains(&sessions.max_replays), "sessions.max_replays", "must be 0 to 100")?;
        check(
            (0..=60).contains(&sessions.cache_trust_s),
            "sessions.cache_trust_s",
            "must be 0 to 60: the promised bound of a revocation",
        )?;
        check(
            (8192..=1 << 20).contains(&passwords.memory_kib),
            "passwords.memory_kib",
            "must be 8192 to 1048576",
        )?;
        check((1..=16).contains(&passwords.passes), "passwords.passes", "must be 1 to 16")?;
        check((1..=16).contains(&passwords.lanes), "passwords.lanes", "must be 1 to 16")?;
        check(passwords.permits <= 1024, "passwords.permits", "must be at most 1024")?;
        check(passwords.failures_per_scope >= 1, "passwords.failures_per_scope", "must be at least 1")?;
        check(
            passwords.failures_per_identifier >= 1,
            "passwords.failures_per_identifier",
            "must be at least 1",
        )?;
        check(
            (0..=5000).contains(&passwords.failure_delay_ms),
            "passwords.failure_delay_ms",
            "must be 0 to 5000",
        )?;
        check(self.accounts.identifier_hold_s >= 0, "accounts.identifier_hold_s", "must not be negative")
    }

    fn validate_keys(&self) -> Result<(), ConfigError> {
        let tokens = &self.tokens;
        let poll_s = (self.directory.poll_ms / 1000).cast_signed() + 1;
        let least = tokens.jwks_max_age_s + poll_s + SKEW_S + VERIFIER_COOL_DOWN_S;
        check(
            tokens.key_lead_s >= least,
            "tokens.key_lead_s",
            &format!(
                "must be at least {least}: jwks_max_age_s + poll + {SKEW_S} s skew + {VERIFIER_COOL_DOWN_S} s cool-down, or verifiers meet a key that they cannot know"
            ),
        )?;
        check(
            tokens.key_rotation_s > tokens.key_lead_s,
            "tokens.key_rotation_s",
            "must be more than tokens.key_lead_s",
        )?;
        check(
            tokens.key_horizon_s > tokens.key_lead_s,
            "tokens.key_horizon_s",
            "must be more than tokens.key_lead_s",
        )?;
        check(tokens.key_overtime_s >= 0, "tokens.key_overtime_s", "must not be negative")
    }
}

fn check(ok: bool, key: &str, reason: &str) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError(format!("{key}: {reason}"))) }
}

fn is_base_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ', '@']))
}

/// Figment's errors name the path; the value is left out, it might be a secret in the wrong place.
fn describe(error: &figment::Error) -> String {
    use figment::error::Kind;
    let path = error.path.join(".");
    let reason = match &error.kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => format!("must be {expected}"),
        Kind::UnknownField(field, _) => return format!("{}: unknown key", join(&path, field)),
        Kind::MissingField(field) => return format!("{}: missing", join(&path, field)),
        Kind::UnknownVariant(_, expected) => format!("must be one of {}", expected.join(", ")),
        Kind::Message(message) => message.lines().next().unwrap_or("cannot be read").to_owned(),
        _ => "cannot be read".to_owned(),
    };
    if path.is_empty() { reason } else { format!("{path}: {reason}") }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() || path.ends_with(field) {
        if path.is_empty() { field.to_owned() } else { path.to_owned() }
    } else {
        format!("{path}.{field}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn load(text: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[redis]\nnodes = [\"127.0.0.1:7600\"]\n").unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Config::load(Some(file.path())).map_err(|e| e.0)
    }

    #[test]
    fn the_defaults_parse_and_need_only_the_redis_nodes() {
        assert!(load("").is_ok());
        assert_eq!(
            Config::load(None).map(|_| ()).map_err(|e| e.0),
            Err("redis.nodes: must name at least one cluster node".into())
        );
    }

    #[test]
    fn a_mistake_names_its_key() {
        for (text, begins) in [
            ("[server]\nlisten = \"nonsense\"", "server.listen"),
            ("[server]\nlisten = 3002", "server.listen"),
            ("[server]\nlissen = \"127.0.0.1:1\"", "server.lissen: unknown key"),
            ("[servers]\nlisten = \"127.0.0.1:1\"", "servers: unknown key"),
            ("[server]\npublic_url = \"auth.example\"", "server.public_url"),
            ("[tokens]\nkey_lead_s = 100", "tokens.key_lead_s: must be at least 362"),
            ("[sessions]\ncache_trust_s = 61", "sessions.cache_trust_s"),
            ("[log]\nformat = \"xml\"", "log.format"),
        ] {
            let error = load(text).map(|_| ()).unwrap_err();
            assert!(error.starts_with(begins), "{text}: {error}");
        }
    }
}
