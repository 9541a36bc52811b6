//! Hot session copies in Redis Cluster, one key a session.
//!
//! A copy is believed only if it was checked after its master's `trust_after`: a failover may have lost the tombstones
//! that were written before it, so after every sign of one (a new master, a reconnect, changed slots, the breaker
//! closing) older copies are treated as nothing until the primary confirms them.
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auth_core::domain::LiveSession;
use auth_core::ports::{CacheAnswer, Clock, Revoked, SessionCache};
use fred::error::Error;
use fred::types::FromValue;
use fred::types::config::Server;
use fred::types::scripts::Script;
use futures::StreamExt;
use shard_key::SessionId;

use super::cluster::Cluster;
use super::node::{Node, count};
use super::{entry, scripts};

const ENTRY_TTL: chrono::Duration = chrono::Duration::minutes(15);
/// Longer than the longest read path and the time that a copy is believed (60 s) together.
const TOMBSTONE_TTL: Duration = Duration::from_secs(180);
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
    cluster: Arc<Cluster>,
    clock: Arc<dyn Clock>,
    put: Script,
    bury: Script,
}

impl RedisSessions {
    /// Starts connecting in the background and returns at once: a node serves without Redis. Call it inside a runtime.
    ///
    /// # Errors
    /// A node is not `host:port`, or there is none.
    pub fn start(config: &RedisConfig, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let seeds = config.nodes.iter().map(|node| server(node)).collect::<Result<Vec<_>, _>>()?;
        if seeds.is_empty() {
            return Err("no Redis node is named".to_owned());
        }
        let shared = Arc::new(Shared {
            cluster: Cluster::start(seeds, Arc::clone(&clock)),
            clock,
            put: Script::from_lua(scripts::PUT),
            bury: Script::from_lua(scripts::BURY),
        });
        Ok(Self { shared })
    }

    /// Whether every master is being asked now, for `/health/dependencies`.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.masters_down().is_some_and(|down| down.is_empty())
    }

    /// The masters that are not asked now, `host:port`; `None` while none is known at all.
    #[must_use]
    pub fn masters_down(&self) -> Option<Vec<String>> {
        self.shared.cluster.down()
    }

    /// Closes the connections.
    pub fn shutdown(&self) {
        self.shared.cluster.leave();
    }
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
    /// One command to the master of `key`, and who that was. `None`: it was not to be had.
    async fn ask<T, F>(
        &self,
        op: &'static str,
        key: String,
        command: impl FnOnce(Arc<Node>, String) -> F,
    ) -> Option<(T, Arc<Node>)>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Some(node) = self.cluster.master(&key) else {
            count(op, "refused");
            return None;
        };
        let answer = node.ask(op, command(Arc::clone(&node), key)).await?;
        Some((answer, node))
    }

    /// Runs a script over one key.
    pub(super) async fn run<R: FromValue>(
        &self,
        op: &'static str,
        script: &Script,
        key: String,
        args: Vec<String>,
    ) -> Option<R> {
        let run = |node: Arc<Node>, key| async move { node.eval(script, key, args).await };
        self.ask(op, key, run).await.map(|(answer, _)| answer)
    }
}

#[async_trait]
impl SessionCache for RedisSessions {
    async fn get(&self, session: SessionId) -> CacheAnswer {
        let asked = self.shared.ask("get", key(session), |node, key| async move { node.get(key).await });
        let Some((text, node)) = asked.await else { return CacheAnswer::Nothing };
        let answer = text.map_or(CacheAnswer::Nothing, |text| entry::parse(session, &text));
        match answer {
            CacheAnswer::Live(copy) if !node.trusts(copy.checked_at) => {
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
        if let Some(written) = shared.run::<i64>("put", &shared.put, key(session.id), args).await {
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
                let key = key(ended.session);
                if let Some(written) = shared.run::<i64>("bury", &shared.bury, key, args).await {
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
    }
}
