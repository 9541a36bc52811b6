//! Hot session copies in Redis Cluster, one key a session.
//!
//! A copy is believed only if it was checked after `trust_after`: a failover may have lost the tombstones that were
//! written before it, so after every sign of one (reconnect, changed slots, the breaker closing) older copies are
//! treated as nothing until the primary confirms them.
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use auth_core::domain::LiveSession;
use auth_core::ports::{CacheAnswer, Clock, Revoked, SessionCache};
use chrono::{DateTime, Utc};
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, ClusterInterface, EventInterface, KeysInterface, LuaInterface};
use fred::types::config::{
    ClusterDiscoveryPolicy, Config, Options, ReconnectPolicy, Server, ServerConfig, UnresponsiveConfig,
};
use fred::types::scripts::Script;
use fred::types::{Builder, FromValue};
use futures::StreamExt;
use shard_key::SessionId;
use tracing::Instrument;

use super::breaker::Breaker;
use super::{entry, scripts};
use crate::spans;

const COMMAND_TIMEOUT: Duration = Duration::from_millis(50);
/// A Redis that is slow to answer a healthy client's housekeeping is treated as gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer may be outstanding before its connection is closed and made anew.
const UNRESPONSIVE_AFTER: Duration = Duration::from_millis(500);
const RECONNECT_MIN_MS: u32 = 100;
const RECONNECT_MAX_MS: u32 = 2_000;
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Commands waiting inside the client; beyond that they fail at once.
const MAX_QUEUED: usize = 4_096;
const ENTRY_TTL: chrono::Duration = chrono::Duration::minutes(15);
/// Longer than the longest read path and the time that a copy is believed (60 s) together.
const TOMBSTONE_TTL: Duration = Duration::from_secs(180);
/// How far the clocks of a node and a database may be apart before the node stops (RELIABILITY).
const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(5);
const PARALLEL_BURIALS: usize = 16;

/// Where Redis is.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `host:port` of nodes of the cluster; the others are found through them.
    pub nodes: Vec<String>,
}

/// The session cache over Redis Cluster. Cheap to clone.
#[derive(Clone)]
pub struct RedisSessions {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    client: Client,
    options: Options,
    breaker: Breaker,
    clock: Arc<dyn Clock>,
    put: Script,
    bury: Script,
    /// Unix microseconds; copies checked before are nothing.
    trust_after: AtomicI64,
    syncing: AtomicBool,
}

impl RedisSessions {
    /// Starts connecting in the background and returns at once: a node serves without Redis. Call it inside a runtime.
    ///
    /// # Errors
    /// A node is not `host:port`, or there is none.
    pub fn start(config: &RedisConfig, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let client = client(config)?;
        let shared = Arc::new(Shared {
            client: client.clone(),
            options: Options {
                max_attempts: Some(1),
                timeout: Some(COMMAND_TIMEOUT),
                fail_fast: true,
                ..Options::default()
            },
            breaker: Breaker::new(),
            trust_after: AtomicI64::new(0),
            clock,
            put: Script::from_lua(scripts::PUT),
            bury: Script::from_lua(scripts::BURY),
            syncing: AtomicBool::new(false),
        });
        shared.distrust_older("start");
        let weak = Arc::downgrade(&shared);
        client.on_reconnect(move |_| distrust(weak.clone(), "reconnect"));
        let weak = Arc::downgrade(&shared);
        client.on_cluster_change(move |_| distrust(weak.clone(), "cluster_change"));
        drop(client.connect());
        Ok(Self { shared })
    }

    /// Whether Redis is being asked now, for `/health/dependencies`.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.shared.breaker.code() == 0
    }

    /// Closes the connections.
    pub async fn shutdown(&self) {
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, self.shared.client.quit()).await;
    }
}

async fn distrust(shared: std::sync::Weak<Shared>, why: &'static str) -> Result<(), Error> {
    if let Some(shared) = shared.upgrade() {
        shared.distrust_older(why);
    }
    Ok(())
}

fn client(config: &RedisConfig) -> Result<Client, String> {
    let hosts = config.nodes.iter().map(|node| server(node)).collect::<Result<Vec<_>, _>>()?;
    if hosts.is_empty() {
        return Err("no Redis node is named".to_owned());
    }
    // Known nodes and those found through them: either list alone can be all dead after a failover.
    let server = ServerConfig::Clustered { hosts, policy: ClusterDiscoveryPolicy::UseCache };
    Builder::from_config(Config { server, fail_fast: false, ..Config::default() })
        .with_performance_config(|performance| performance.default_command_timeout = COMMAND_TIMEOUT)
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            connection.max_command_attempts = 1;
            connection.max_redirections = 3;
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
        .map_err(|e| e.to_string())
}

fn server(node: &str) -> Result<Server, String> {
    let (host, port) = node.rsplit_once(':').ok_or_else(|| format!("{node} is not host:port"))?;
    let port = port.parse().map_err(|_| format!("{node} is not host:port"))?;
    Ok(Server::new(host.trim_start_matches('[').trim_end_matches(']'), port))
}

fn key(session: SessionId) -> String {
    format!("s:{{{session}}}")
}

impl Shared {
    /// Sends one command within its deadline, if the breaker lets it.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        op: &'static str,
        command: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        let Some(permit) = self.breaker.enter(Instant::now()) else {
            count(op, "refused");
            return None;
        };
        let started = Instant::now();
        // The client's own timeout is the same; this one also bounds its queue.
        let span = spans::command(op);
        let outcome = tokio::time::timeout(COMMAND_TIMEOUT, command).instrument(span.clone()).await;
        metrics::histogram!("tessera_redis_seconds", "op" => op).record(started.elapsed().as_secs_f64());
        let answer = match outcome {
            Ok(Ok(answer)) => {
                if permit.succeeded() {
                    tracing::info!("Redis answers again");
                    self.distrust_older("breaker");
                    self.sync_cluster();
                }
                Some(answer)
            }
            failure => {
                if let Ok(Err(error)) = &failure
                    && is_about_slots(error)
                {
                    self.sync_cluster();
                }
                let kind = if matches!(failure, Ok(Err(_))) { "error" } else { "timeout" };
                spans::unanswered(&span, kind);
                count(op, kind);
                if permit.failed(Instant::now()) {
                    tracing::warn!("Redis does not answer: going on without it");
                }
                None
            }
        };
        metrics::gauge!("tessera_redis_breaker_state").set(f64::from(self.breaker.code()));
        answer
    }

    fn distrust_older(&self, why: &'static str) {
        let from = (self.clock.now() + CLOCK_SLACK).timestamp_micros();
        self.trust_after.fetch_max(from, Ordering::Relaxed);
        metrics::counter!("tessera_cache_distrust_total", "reason" => why).increment(1);
    }

    fn trusts(&self, checked_at: DateTime<Utc>) -> bool {
        checked_at.timestamp_micros() >= self.trust_after.load(Ordering::Relaxed)
    }

    /// Learns the slots anew, in the background, at most once a second.
    fn sync_cluster(self: &Arc<Self>) {
        if self.syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(SYNC_INTERVAL, shared.client.sync_cluster()).await;
            tokio::time::sleep(SYNC_INTERVAL).await;
            shared.syncing.store(false, Ordering::Release);
        });
    }

    pub(super) async fn eval<R: FromValue>(
        &self,
        script: &Script,
        key: String,
        args: Vec<String>,
    ) -> Result<R, Error> {
        let client = self.client.with_options(&self.options);
        let hash = script.sha1().clone();
        match client.evalsha(hash, key.clone(), args.clone()).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                // `EVAL` also loads it, on the node that lacks it: a restarted one costs a single extra trip.
                let lua = script.lua().cloned().unwrap_or_default();
                client.eval(lua, key, args).await
            }
            outcome => outcome,
        }
    }
}

/// A slot is elsewhere or nowhere: the client's table is old.
fn is_about_slots(error: &Error) -> bool {
    let says = |prefix: &str| error.details().starts_with(prefix);
    matches!(error.kind(), ErrorKind::Cluster | ErrorKind::Routing)
        || ["MOVED", "ASK", "CLUSTERDOWN", "READONLY", "Too many redirections"].into_iter().any(says)
}

fn count(op: &'static str, result: &'static str) {
    metrics::counter!("tessera_cache_requests_total", "op" => op, "result" => result).increment(1);
}

#[async_trait]
impl SessionCache for RedisSessions {
    async fn get(&self, session: SessionId) -> CacheAnswer {
        let shared = &self.shared;
        let client = shared.client.with_options(&shared.options);
        let Some(text) = shared.ask("get", client.get::<Option<String>, _>(key(session))).await else {
            return CacheAnswer::Nothing;
        };
        let answer = text.map_or(CacheAnswer::Nothing, |text| entry::parse(session, &text));
        match answer {
            CacheAnswer::Live(copy) if !shared.trusts(copy.checked_at) => {
                count("get", "distrusted");
                CacheAnswer::Nothing
            }
            CacheAnswer::Live(copy) => {
                count("get", "hit");
                CacheAnswer::Live(copy)
            }
            CacheAnswer::Dead => {
                count("get", "dead");
                CacheAnswer::Dead
            }
            CacheAnswer::Nothing => {
                count("get", "miss");
                CacheAnswer::Nothing
            }
        }
    }

    async fn put(&self, session: &LiveSession) {
        let shared = &self.shared;
        let rest = (session.expires_at - shared.clock.now()).min(ENTRY_TTL).num_milliseconds();
        let Some(text) = entry::live(session).filter(|_| rest > 0) else { return };
        let args = vec![
            session.version.to_string(),
            session.checked_at.timestamp_micros().to_string(),
            text,
            rest.to_string(),
        ];
        if let Some(written) = shared.ask("put", shared.eval::<i64>(&shared.put, key(session.id), args)).await
        {
            count("put", if written == 1 { "written" } else { "newer_held" });
        }
    }

    async fn bury(&self, revoked: &[Revoked]) {
        let shared = &self.shared;
        futures::stream::iter(revoked)
            .for_each_concurrent(PARALLEL_BURIALS, |ended| async move {
                let args = vec![
                    ended.version.to_string(),
                    entry::dead(ended.version),
                    TOMBSTONE_TTL.as_millis().to_string(),
                ];
                if let Some(written) =
                    shared.ask("bury", shared.eval::<i64>(&shared.bury, key(ended.session), args)).await
                {
                    count("bury", if written == 1 { "written" } else { "newer_held" });
                }
            })
            .await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_host_and_port() {
        assert_eq!(server("127.0.0.1:7600").unwrap(), Server::new("127.0.0.1", 7600));
        assert_eq!(server("[::1]:7600").unwrap(), Server::new("::1", 7600));
        assert!(server("redis").is_err() && server("redis:port").is_err());
        assert!(client(&RedisConfig { nodes: Vec::new() }).is_err());
    }
}
