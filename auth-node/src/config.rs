//! Configuration: raw (as written) → validated (as used). A mistake names its key and stops the start with exit 2.
mod limits;
mod telemetry;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use ipnet::IpNet;
use serde::Deserialize;

pub use limits::Limits;
pub use telemetry::Telemetry;

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
    pub limits: Limits,
    pub log: Log,
    pub telemetry: Telemetry,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    pub ops_listen: SocketAddr,
    pub public_url: String,
    pub allowed_origins: Vec<String>,
    pub allowed_hosts: Vec<String>,
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
        if config.limits.session_loads == 0 {
            config.limits.session_loads = (config.postgres.pool_size / 2).max(1);
        }
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let server = &self.server;
        let url = "must be http(s)://host[:port] without a trailing slash";
        check(is_base_url(&server.public_url), "server.public_url", url)?;
        let differs = server.listen != server.ops_listen || server.listen.port() == 0;
        check(differs, "server.ops_listen", "must differ from server.listen")?;
        check(server.allowed_origins.iter().all(|o| is_base_url(o)), "server.allowed_origins", url)?;
        let hosts = server.allowed_hosts.iter().all(|host| is_authority(host));
        check(hosts, "server.allowed_hosts", "must be host or host:port each")?;
        let named =
            |node: &String| node.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        check(!self.redis.nodes.is_empty(), "redis.nodes", "must name at least one cluster node")?;
        check(self.redis.nodes.iter().all(named), "redis.nodes", "must be host:port each")?;
        for (key, value, bounds) in self.numbers() {
            let reason = format!("must be {} to {}", bounds.start(), bounds.end());
            check(bounds.contains(&value), key, &reason)?;
        }
        self.limits.validate()?;
        self.telemetry.validate()?;
        self.validate_keys()
    }

    /// Every number and its bounds. All durations are far below what adding them to a date could overflow.
    fn numbers(&self) -> [(&'static str, i64, RangeInclusive<i64>); 33] {
        const YEAR_S: i64 = 31_536_000;
        let (server, sessions, passwords) = (&self.server, &self.sessions, &self.passwords);
        let (postgres, tokens) = (&self.postgres, &self.tokens);
        let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let ms = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        [
            ("server.max_connections", whole(server.max_connections), 1..=1_000_000),
            ("server.body_max_bytes", whole(server.body_max_bytes), 1024..=1 << 20),
            ("server.header_max_bytes", whole(server.header_max_bytes), 8192..=1 << 20),
            ("server.request_timeout_ms", ms(server.request_timeout_ms), 1000..=60_000),
            ("server.keep_alive_ms", ms(server.keep_alive_ms), 1000..=600_000),
            ("server.drain_grace_ms", ms(server.drain_grace_ms), 0..=60_000),
            ("server.drain_max_ms", ms(server.drain_max_ms), 0..=300_000),
            ("directory.poll_ms", ms(self.directory.poll_ms), 100..=60_000),
            ("postgres.pool_size", whole(postgres.pool_size), 1..=1000),
            ("postgres.checkout_timeout_ms", ms(postgres.checkout_timeout_ms), 10..=10_000),
            ("postgres.connect_timeout_ms", ms(postgres.connect_timeout_ms), 10..=10_000),
            ("tokens.access_ttl_s", tokens.access_ttl_s, 10..=3600),
            ("tokens.leeway_s", tokens.leeway_s, 0..=120),
            ("tokens.jwks_max_age_s", tokens.jwks_max_age_s, 1..=86_400),
            ("tokens.key_lead_s", tokens.key_lead_s, 0..=YEAR_S),
            ("tokens.key_rotation_s", tokens.key_rotation_s, 0..=10 * YEAR_S),
            ("tokens.key_horizon_s", tokens.key_horizon_s, 0..=YEAR_S),
            ("tokens.key_overtime_s", tokens.key_overtime_s, 0..=YEAR_S),
            ("sessions.absolute_s", sessions.absolute_s, 60..=10 * YEAR_S),
            ("sessions.idle_s", sessions.idle_s, 60..=sessions.absolute_s),
            ("sessions.max_live", sessions.max_live, 1..=1000),
            ("sessions.replay_window_s", sessions.replay_window_s, 0..=300),
            ("sessions.max_replays", sessions.max_replays.into(), 0..=100),
            ("sessions.late_replay_every", sessions.late_replay_every, 0..=1_000_000),
            // The promised bound of a revocation.
            ("sessions.cache_trust_s", sessions.cache_trust_s, 0..=60),
            ("passwords.memory_kib", passwords.memory_kib.into(), 8192..=1 << 20),
            ("passwords.passes", passwords.passes.into(), 1..=16),
            ("passwords.lanes", passwords.lanes.into(), 1..=16),
            ("passwords.permits", whole(passwords.permits), 0..=1024),
            ("passwords.wait_ms", ms(passwords.wait_ms), 0..=60_000),
            ("passwords.failures_per_scope", passwords.failures_per_scope.into(), 1..=1_000_000),
            ("passwords.failure_window_s", passwords.failure_window_s, 1..=86_400),
            ("passwords.failures_per_identifier", passwords.failures_per_identifier.into(), 1..=1_000_000),
        ]
    }

    fn validate_keys(&self) -> Result<(), ConfigError> {
        let tokens = &self.tokens;
        let delay = self.passwords.failure_delay_ms;
        check((0..=5000).contains(&delay), "passwords.failure_delay_ms", "must be 0 to 5000")?;
        let hold = self.accounts.identifier_hold_s;
        check((0..=315_360_000).contains(&hold), "accounts.identifier_hold_s", "must be 0 to 315360000")?;
        let poll_s = (self.directory.poll_ms / 1000).cast_signed() + 1;
        let least = tokens.jwks_max_age_s + poll_s + SKEW_S + VERIFIER_COOL_DOWN_S;
        let reason = format!(
            "must be at least {least}: jwks_max_age_s + poll + {SKEW_S} s skew + {VERIFIER_COOL_DOWN_S} s cool-down, or verifiers meet a key that they cannot know"
        );
        check(tokens.key_lead_s >= least, "tokens.key_lead_s", &reason)?;
        let longer = "must be more than tokens.key_lead_s";
        check(tokens.key_rotation_s > tokens.key_lead_s, "tokens.key_rotation_s", longer)?;
        check(tokens.key_horizon_s > tokens.key_lead_s, "tokens.key_horizon_s", longer)
    }
}

fn check(ok: bool, key: &str, reason: &str) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError(format!("{key}: {reason}"))) }
}

fn is_base_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(is_authority)
}

/// `host[:port]`, without a user.
fn is_authority(text: &str) -> bool {
    !text.contains('@') && text.parse::<axum::http::uri::Authority>().is_ok()
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
            ("[server]\nallowed_hosts = [\"https://auth.example\"]", "server.allowed_hosts"),
            ("[tokens]\nkey_lead_s = 100", "tokens.key_lead_s: must be at least 362"),
            ("[sessions]\ncache_trust_s = 61", "sessions.cache_trust_s"),
            ("[passwords]\nfailure_window_s = -1", "passwords.failure_window_s"),
            ("[accounts]\nidentifier_hold_s = 9223372036854775", "accounts.identifier_hold_s"),
            ("[limits]\nnodes = 101", "limits.nodes: must be 1 to limits.per_address"),
            ("[limits]\nwindow_s = 1", "limits.window_s"),
            ("[log]\nformat = \"xml\"", "log.format"),
            ("[telemetry]\notlp_endpoint = \"https://c:4318\"", "telemetry.otlp_endpoint: must be http://"),
            ("[telemetry]\notlp_endpoint = \"http://c:4318/v1/traces\"", "telemetry.otlp_endpoint"),
            ("[telemetry]\ntrace_sample_ratio = 1.5", "telemetry.trace_sample_ratio"),
            ("[telemetry]\nbatch_spans = 5000", "telemetry.batch_spans: must be 1 to telemetry.queue_spans"),
        ] {
            let error = load(text).map(|_| ()).unwrap_err();
            assert!(error.starts_with(begins), "{text}: {error}");
        }
    }
}
