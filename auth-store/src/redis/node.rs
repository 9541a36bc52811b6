//! One master of the Redis Cluster: a connection, a breaker, and since when what it says about sessions is believed.
//!
//! Each master has a client of its own, so that one which hangs, or is being connected to, holds up nobody who asks
//! another.
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use auth_core::ports::Clock;
use chrono::{DateTime, Utc};
use fred::clients::{Client, WithOptions};
use fred::error::Error;
use fred::interfaces::{ClientLike, ClusterInterface, EventInterface, KeysInterface, LuaInterface};
use fred::types::config::{Config, Options, ReconnectPolicy, Server, ServerConfig, UnresponsiveConfig};
use fred::types::scripts::Script;
use fred::types::{Builder, ConnectHandle, FromValue, Value};
use shard_router::{Breaker, BreakerSettings, Change, Pass, Phase};
use tokio::sync::Notify;
use tracing::Instrument;

use crate::spans;

const COMMAND_TIMEOUT: Duration = Duration::from_millis(50);
/// A Redis that is slow to answer a healthy client's housekeeping is treated as gone.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer may be outstanding before its connection is closed and made anew.
const UNRESPONSIVE_AFTER: Duration = Duration::from_millis(500);
const RECONNECT_MIN_MS: u32 = 100;
const RECONNECT_MAX_MS: u32 = 2_000;
/// Commands waiting inside one client; beyond that they fail at once.
const MAX_QUEUED: usize = 4_096;
/// How far the clocks of a node and a database may be apart before the node stops (RELIABILITY).
const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(5);
const BREAKER: BreakerSettings =
    BreakerSettings { failures: 5, first_pause: Duration::from_secs(1), pause: Duration::from_secs(1) };

/// One master, as long as the cluster names it as one.
pub(super) struct Node {
    pub(super) server: Server,
    client: WithOptions<Client>,
    connecting: ConnectHandle,
    breaker: Breaker,
    /// Unix microseconds; copies checked before are nothing.
    trust_after: AtomicI64,
    clock: Arc<dyn Clock>,
    /// Wakes who keeps the routes.
    troubled: Arc<Notify>,
}

impl Node {
    /// Starts connecting.
    pub fn start(server: Server, clock: Arc<dyn Clock>, troubled: Arc<Notify>) -> Result<Arc<Self>, Error> {
        let client = client(&server)?;
        let options = Options {
            max_attempts: Some(1),
            timeout: Some(COMMAND_TIMEOUT),
            fail_fast: true,
            ..Options::default()
        };
        Ok(Arc::new(Self {
            server,
            connecting: client.connect(),
            client: client.with_options(&options),
            breaker: Breaker::open(BREAKER),
            trust_after: AtomicI64::new(0),
            clock,
            troubled,
        }))
    }

    /// It is a master from now on, as far as we know: nothing of before is believed, and it is asked once it has
    /// answered.
    pub fn join(self: &Arc<Self>) {
        self.distrust_older("new");
        let weak = Arc::downgrade(self);
        self.client.on_reconnect(move |_| {
            if let Some(node) = weak.upgrade() {
                node.distrust_older("reconnect");
            }
            std::future::ready(Ok(()))
        });
    }

    pub fn is_up(&self) -> bool {
        self.breaker.phase() == Phase::Closed
    }

    /// Sends one command within its deadline, if the breaker lets it.
    pub async fn ask<T>(
        &self,
        op: &'static str,
        command: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        let Some(pass) = self.breaker.pass() else {
            count(op, "refused");
            return None;
        };
        let started = Instant::now();
        // The client's own timeout is the same; this one also bounds its queue.
        let span = spans::command(op);
        let outcome = tokio::time::timeout(COMMAND_TIMEOUT, command).instrument(span.clone()).await;
        metrics::histogram!("tessera_redis_seconds", "op" => op).record(started.elapsed().as_secs_f64());
        match outcome {
            Ok(Ok(answer)) => {
                pass.answered();
                return Some(answer);
            }
            Ok(Err(error)) if is_elsewhere(&error) => {
                count(op, "moved");
                spans::unanswered(&span, "moved");
                pass.answered();
                self.troubled.notify_one();
            }
            Ok(Err(_)) => {
                count(op, "error");
                spans::unanswered(&span, "error");
                self.failed(pass);
            }
            Err(_) => {
                count(op, "timeout");
                spans::unanswered(&span, "timeout");
                self.failed(pass);
            }
        }
        None
    }

    fn failed(&self, pass: Pass) {
        if pass.failed(Instant::now()) == Some(Change::Opened) {
            tracing::warn!(server = %self.server, "a Redis master does not answer: going on without it");
            self.report();
            self.troubled.notify_one();
        }
    }

    /// While the breaker is open: asks for `key`, of a slot that is its own, as a request would.
    pub async fn try_again(&self, key: &str) {
        let Some(trial) = self.breaker.trial(Instant::now()) else { return };
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, self.client.wait_for_connect()).await;
        let answer = tokio::time::timeout(COMMAND_TIMEOUT, self.client.get::<Value, _>(key)).await;
        if matches!(answer, Ok(Ok(_))) {
            // It may have been replaced, and put back, meanwhile.
            self.distrust_older("breaker");
            trial.answered();
            tracing::info!(server = %self.server, "a Redis master answers");
        } else {
            trial.failed(Instant::now());
        }
        self.report();
    }

    /// What `CLUSTER SLOTS` says.
    pub async fn slots(&self) -> Result<Value, Error> {
        self.client.cluster_slots().await
    }

    pub async fn wait_for_connect(&self) -> Result<(), Error> {
        self.client.wait_for_connect().await
    }

    pub fn distrust_older(&self, why: &'static str) {
        let from = (self.clock.now() + CLOCK_SLACK).timestamp_micros();
        self.trust_after.fetch_max(from, Ordering::Relaxed);
        metrics::counter!("tessera_cache_distrust_total", "reason" => why).increment(1);
    }

    /// Whether a copy of that time is worth something: a failover may have lost the tombstones of before.
    pub fn trusts(&self, checked_at: DateTime<Utc>) -> bool {
        checked_at.timestamp_micros() >= self.trust_after.load(Ordering::Relaxed)
    }

    pub async fn get(&self, key: String) -> Result<Option<String>, Error> {
        self.client.get(key).await
    }

    pub async fn eval<R: FromValue>(
        &self,
        script: &Script,
        key: String,
        args: Vec<String>,
    ) -> Result<R, Error> {
        let hash = script.sha1().clone();
        match self.client.evalsha(hash, key.clone(), args.clone()).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                // `EVAL` also loads it: a restarted server costs a single extra trip.
                let lua = script.lua().cloned().unwrap_or_default();
                self.client.eval(lua, key, args).await
            }
            outcome => outcome,
        }
    }

    fn report(&self) {
        let code = f64::from(self.breaker.phase().code());
        metrics::gauge!("tessera_redis_breaker_state", "server" => self.server.to_string()).set(code);
    }

    /// It is no master of the cluster any more, or we end.
    pub fn leave(&self) {
        self.connecting.abort();
        metrics::gauge!("tessera_redis_breaker_state", "server" => self.server.to_string()).set(f64::NAN);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.connecting.abort();
    }
}

fn client(server: &Server) -> Result<Client, Error> {
    let server = ServerConfig::Centralized { server: server.clone() };
    Builder::from_config(Config { server, fail_fast: false, ..Config::default() })
        .with_performance_config(|performance| performance.default_command_timeout = COMMAND_TIMEOUT)
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = MAX_QUEUED;
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(UNRESPONSIVE_AFTER),
                interval: UNRESPONSIVE_AFTER / 4,
            };
            connection.tcp.nodelay = Some(true);
        })
        // For ever, but never more often than every 100 ms: the pause is bounded, not the patience.
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2))
        .build()
}

/// The slot is another server's: an answer, to a question that went to the wrong one.
fn is_elsewhere(error: &Error) -> bool {
    ["MOVED", "ASK"].into_iter().any(|word| error.details().starts_with(word))
}

pub(super) fn count(op: &'static str, result: &'static str) {
    metrics::counter!("tessera_cache_requests_total", "op" => op, "result" => result).increment(1);
}
