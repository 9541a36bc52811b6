//! Wiring: the one place where state (`auth-store`, `shard-router`) meets rules (`auth-core`).
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use auth_core::crypto::password::{HashConfig, PasswordHasher};
use auth_core::crypto::refresh_token::RefreshCodec;
use auth_core::crypto::ring::SecretRing;
use auth_core::crypto::seal::Sealer;
use auth_core::domain::{KeyTimes, PasswordLimits, SessionLimits};
use auth_core::ports::{Clock, Random, SessionCache};
use auth_core::services::{
    Account, Authenticator, ClockGuard, ClockState, Keys, LoginService, PasswordProof, RefreshService,
    RegisterService, SessionService, Throttle, TokenIssuer, TokenSettings,
};
use auth_input::TrustedProxies;
use auth_store::{RedisConfig, RedisSessions, Store, StoreLimits};
use chrono::Duration;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use shard_router::{Address, Login, Router, RouterConfig};

use crate::Failure;
use crate::config::{Config, ConfigError};
use crate::edge::Edge;
use crate::secrets::{self, SecretFiles};
use crate::time::{SystemClock, SystemRandom};
use crate::traces::Traces;

/// What is seen of a node from outside, opened before anything else.
pub struct Telemetry {
    pub metrics: PrometheusHandle,
    pub traces: Option<Traces>,
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The services and settings of this node.
pub struct Parts {
    pub register: RegisterService,
    pub login: LoginService,
    pub refresh: RefreshService,
    pub sessions: SessionService,
    pub account: Account,
    pub authenticator: Authenticator,
    pub throttle: Arc<Throttle>,
    pub keys: Arc<Keys>,
    pub store: Store,
    pub cache: RedisSessions,
    pub router: Router,
    pub metrics: PrometheusHandle,
    /// Where spans go, if anywhere.
    pub traces: Option<Traces>,
    pub proxies: TrustedProxies,
    pub edge: Edge,
    pub body_max_bytes: usize,
    pub request_timeout: std::time::Duration,
    pub jwks_cache_control: String,
    clock: Arc<dyn Clock>,
    guard: Arc<ClockGuard>,
    draining: AtomicBool,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Opens everything that a serving node needs. A key that does not fit the data is a configuration error.
    pub async fn open(config: &Config, telemetry: Telemetry) -> Result<Self, Failure> {
        let files = SecretFiles::load(&config.secrets.dir)?;
        let router = start_router(config, &config.server.state_dir).await?;
        let prints = &files.fingerprints;
        let refuse = |e: shard_router::CheckError| ConfigError(format!("secrets.dir or directory: {e}"));
        router.check_fingerprints(&prints.routing, &prints.lookup).await.map_err(refuse)?;
        router.check_schema().await.map_err(|e| ConfigError(format!("directory: {e}")))?;
        let sealer = Sealer::new(files.seal);
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store =
            Store::new(router.clone(), sealer.clone(), Arc::clone(&random)).with_limits(store_limits(config));
        let redis = RedisConfig { nodes: config.redis.nodes.clone() };
        let cache = RedisSessions::start(&redis, Arc::clone(&clock))
            .map_err(|e| ConfigError(format!("redis.nodes: {e}")))?;
        let keys = Arc::new(open_keys(config, &router, sealer, Arc::clone(&clock), Arc::clone(&random)));
        let world = World { store, cache, router, keys, clock, random, telemetry };
        Self::wire(config, world, files.identifiers, files.once, (files.refresh, files.pepper))
    }

    fn wire(
        config: &Config,
        world: World,
        identifiers: auth_core::services::IdentifierKeys,
        once: auth_core::services::OnceKeys,
        (refresh_ring, pepper): (SecretRing, SecretRing),
    ) -> Result<Self, Failure> {
        let World { store, cache, router, keys, clock, random, telemetry } = world;
        let state = Arc::new(store.clone());
        let hot: Arc<dyn SessionCache> = Arc::new(cache.clone());
        let (identifiers, once) = (Arc::new(identifiers), Arc::new(once));
        let (session_limits, password_limits) = (session_limits(config), password_limits(config));
        let settings = token_settings(config);
        let hasher = Arc::new(hasher(config, pepper)?);
        let codec = Arc::new(RefreshCodec::new(refresh_ring));
        let guard = Arc::new(ClockGuard::new(Arc::clone(&clock)));
        let issuer = Arc::new(TokenIssuer {
            keys: Arc::clone(&keys),
            refresh: Arc::clone(&codec),
            settings: settings.clone(),
            clock: Arc::clone(&clock),
            guard: Arc::clone(&guard),
            random: Arc::clone(&random),
        });
        let proof = PasswordProof {
            logins: state.clone(),
            accounts: state.clone(),
            hasher: Arc::clone(&hasher),
            limits: password_limits.clone(),
        };
        let throttle = Arc::new(Throttle::new(Arc::new(cache.limits()), &config.limits.throttle()));
        let parts = Parts {
            register: RegisterService {
                accounts: state.clone(),
                identifiers: Arc::clone(&identifiers),
                hasher: Arc::clone(&hasher),
                once: Arc::clone(&once),
                clock: Arc::clone(&clock),
                random: Arc::clone(&random),
            },
            login: LoginService {
                logins: state.clone(),
                cache: Arc::clone(&hot),
                identifiers,
                hasher: Arc::clone(&hasher),
                issuer: Arc::clone(&issuer),
                refresh: Arc::clone(&codec),
                session_limits: session_limits.clone(),
                password_limits,
                clock: Arc::clone(&clock),
                random: Arc::clone(&random),
            },
            refresh: RefreshService {
                sessions: state.clone(),
                cache: Arc::clone(&hot),
                codec,
                issuer,
                throttle: Arc::clone(&throttle),
                limits: session_limits.clone(),
            },
            sessions: SessionService {
                sessions: state.clone(),
                cache: Arc::clone(&hot),
                limits: session_limits.clone(),
            },
            account: Account {
                accounts: state.clone(),
                sessions: state.clone(),
                cache: Arc::clone(&hot),
                proof: Arc::new(proof),
                hasher,
                once,
                hold: Duration::seconds(config.accounts.identifier_hold_s),
                random,
            },
            authenticator: Authenticator::new(
                Arc::clone(&keys),
                settings,
                state.clone(),
                Arc::clone(&hot),
                session_limits,
                Arc::clone(&clock),
            ),
            throttle,
            keys,
            store,
            cache,
            router,
            metrics: telemetry.metrics,
            traces: telemetry.traces,
            proxies: TrustedProxies(config.server.trusted_proxies.clone()),
            edge: Edge::new(&config.server),
            body_max_bytes: config.server.body_max_bytes,
            request_timeout: std::time::Duration::from_millis(config.server.request_timeout_ms),
            jwks_cache_control: format!(
                "public, max-age={}, stale-if-error=86400",
                config.tokens.jwks_max_age_s
            ),
            clock,
            guard,
            draining: AtomicBool::new(false),
        };
        Ok(Self(Arc::new(parts)))
    }

    /// From now on the node is not ready.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why the node should get no traffic, if it should not.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if self.clock_is_far_off() {
            Some("the clock is off")
        } else if self.keys.signer(self.clock.now()).is_none() {
            Some("no signing key is valid now")
        } else if self.router.serves_nothing() {
            Some("no shard has a schema that this binary serves")
        } else {
            None
        }
    }

    /// Whether every verdict about time would be wrong here.
    pub fn clock_is_far_off(&self) -> bool {
        self.guard.state() == ClockState::Drain
    }

    /// Compares the clock with those of the shards.
    pub fn check_clock(&self) {
        let now = std::time::Instant::now();
        let readings: Vec<_> = self.router.primary_clocks(now).into_values().collect();
        self.guard.observe(&readings);
    }

    /// What this node sees of everything it stands on.
    pub fn dependencies(&self) -> Value {
        let redis = json!({ "up": self.cache.is_up(), "masters_down": self.cache.masters_down() });
        json!({ "postgresql": self.router.status(), "redis": redis })
    }
}

struct World {
    store: Store,
    cache: RedisSessions,
    router: Router,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    telemetry: Telemetry,
}

/// The router, from the directory or from the last good copy in `state_dir`.
pub async fn start_router(config: &Config, state_dir: &Path) -> Result<Router, Failure> {
    let password = secrets::password(&config.secrets.dir, "postgres.password")?;
    let login = Login { user: config.postgres.user.clone(), password };
    let directory = directory_address(config);
    let settings = RouterConfig {
        checkout_timeout_ms: config.postgres.checkout_timeout_ms,
        connect_timeout_ms: config.postgres.connect_timeout_ms,
        poll_interval_ms: config.directory.poll_ms,
        ..RouterConfig::new(directory, login, state_dir.to_owned(), config.postgres.pool_size)
    };
    Router::start(settings).await.map_err(|e| Failure::Failed(e.to_string()))
}

/// The signing keys over the router's directory.
pub fn open_keys(
    config: &Config,
    router: &Router,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Keys {
    let rows = Arc::new(auth_store::Keys::new(router.clone(), Arc::clone(&clock)));
    Keys::new(rows, Arc::new(sealer), key_times(config), clock, random)
}

/// Where the directory is.
pub fn directory_address(config: &Config) -> Address {
    Address::new(config.directory.host.clone(), config.directory.port, config.directory.dbname.clone())
}

/// The periods of signing keys.
fn key_times(config: &Config) -> KeyTimes {
    let tokens = &config.tokens;
    KeyTimes {
        lead: Duration::seconds(tokens.key_lead_s),
        rotation: Duration::seconds(tokens.key_rotation_s),
        horizon: Duration::seconds(tokens.key_horizon_s),
        overtime: Duration::seconds(tokens.key_overtime_s),
        linger: Duration::seconds(tokens.access_ttl_s + tokens.leeway_s + tokens.jwks_max_age_s),
    }
}

fn token_settings(config: &Config) -> TokenSettings {
    TokenSettings {
        issuer: config.server.public_url.clone(),
        audience: config.tokens.audience.clone(),
        access_ttl_s: config.tokens.access_ttl_s,
        leeway_s: config.tokens.leeway_s,
    }
}

fn session_limits(config: &Config) -> SessionLimits {
    let sessions = &config.sessions;
    SessionLimits {
        idle: Duration::seconds(sessions.idle_s),
        absolute: Duration::seconds(sessions.absolute_s),
        max_live: sessions.max_live,
        replay_window: Duration::seconds(sessions.replay_window_s),
        max_replays: sessions.max_replays,
        late_replay_every: sessions.late_replay_every,
        cache_trust: Duration::seconds(sessions.cache_trust_s),
    }
}

fn password_limits(config: &Config) -> PasswordLimits {
    let passwords = &config.passwords;
    PasswordLimits {
        per_scope: passwords.failures_per_scope,
        scope_window: Duration::seconds(passwords.failure_window_s),
        per_identifier: passwords.failures_per_identifier,
        delay: Duration::milliseconds(passwords.failure_delay_ms),
    }
}

fn store_limits(config: &Config) -> StoreLimits {
    StoreLimits {
        shard_concurrency: config.limits.shard_concurrency,
        session_loads: config.limits.session_loads,
        session_load_wait: std::time::Duration::from_millis(config.postgres.checkout_timeout_ms),
    }
}

fn hasher(config: &Config, peppers: SecretRing) -> Result<PasswordHasher, ConfigError> {
    let passwords = &config.passwords;
    let hash = HashConfig {
        memory_kib: passwords.memory_kib,
        passes: passwords.passes,
        lanes: passwords.lanes,
        permits: passwords.permits,
        wait_ms: passwords.wait_ms,
        peppers,
    };
    PasswordHasher::new(hash).map_err(|e| ConfigError(format!("passwords: {e}")))
}
