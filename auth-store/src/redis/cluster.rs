//! The masters of the Redis Cluster and their slots, kept up to date in the background.
//!
//! Why not the client library's own cluster mode: there one task writes to all servers, and while it reconnects to one
//! (each time for up to a second while a server hangs, for five while it is being replaced) nobody is served
//! (docs/adr/0011). What is needed of a cluster here is little, since every command has one key: look up the slot's
//! master, and learn the slots anew when something is odd. A command that meets an old map is a miss, and its caller
//! goes to PostgreSQL; nothing is followed or tried again.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use auth_core::ports::Clock;
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use fred::types::cluster::ClusterRouting;
use fred::types::config::Server;
use futures::FutureExt;
use futures::future::{join_all, select_ok};
use tokio::sync::Notify;

use super::node::{CONNECT_TIMEOUT, Node};
use crate::budget::jitter;

/// How often trials are made and slots are read while something is wrong, and how often the keeper looks at all.
const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// Servers that are asked at once; the first good answer counts.
const ASKED_AT_ONCE: usize = 3;
/// What Redis Cluster itself is made for. A longer list is not believed.
const MAX_MASTERS: usize = 1000;

/// Who holds which slots. Slots that nobody holds are in no range.
#[derive(Default)]
struct Routes {
    /// First slot, last slot, master; ascending.
    ranges: Vec<(u16, u16, Arc<Node>)>,
    /// With a key of one of its slots each.
    masters: HashMap<Server, (Arc<Node>, String)>,
}

/// Keeps the routes until the cluster is dropped or left.
async fn keep(cluster: Weak<Cluster>, troubled: Arc<Notify>) {
    let ours = || cluster.upgrade().filter(|cluster| !cluster.has_ended.load(Ordering::Relaxed));
    while let Some(cluster) = ours() {
        cluster.tend().await;
        drop(cluster);
        let pause = TEND_INTERVAL / 2 + jitter(TEND_INTERVAL);
        if tokio::time::timeout(pause, troubled.notified()).await.is_ok() {
            // Trouble seldom comes alone; and the cluster needs a moment to know of it.
            tokio::time::sleep(TEND_INTERVAL / 4).await;
            ours().inspect(|cluster| cluster.is_stale.store(true, Ordering::Relaxed));
        }
    }
}

/// The cluster as this node sees it.
pub(super) struct Cluster {
    seeds: Vec<Server>,
    routes: ArcSwap<Routes>,
    clock: Arc<dyn Clock>,
    troubled: Arc<Notify>,
    is_stale: AtomicBool,
    turn: AtomicUsize,
    has_ended: AtomicBool,
}

impl Cluster {
    /// Starts connecting in the background. Its tasks end when it is dropped.
    pub fn start(seeds: Vec<Server>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let cluster = Arc::new(Self {
            seeds,
            routes: ArcSwap::default(),
            clock,
            troubled: Arc::default(),
            is_stale: AtomicBool::new(true),
            turn: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
        });
        tokio::spawn(keep(Arc::downgrade(&cluster), Arc::clone(&cluster.troubled)));
        cluster
    }

    /// The master of a key's slot, as far as is known.
    pub fn master(&self, key: &str) -> Option<Arc<Node>> {
        self.routes.load().master(ClusterRouting::hash_key(key.as_bytes())).cloned()
    }

    /// The masters that are not asked now; `None` while none is known at all.
    pub fn down(&self) -> Option<Vec<String>> {
        let routes = self.routes.load();
        let down = routes.masters.values().filter(|(node, _)| !node.is_up());
        (!routes.masters.is_empty()).then(|| down.map(|(node, _)| node.server.to_string()).collect())
    }

    /// Closes the connections, for good.
    pub fn leave(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        for (node, _) in self.routes.swap(Arc::default()).masters.values() {
            node.leave();
        }
    }

    /// Makes the trials that are due, and reads the slots while something is wrong.
    async fn tend(&self) {
        self.try_again().await;
        let is_whole = self.down().is_some_and(|down| down.is_empty());
        if !self.is_stale.swap(false, Ordering::Relaxed) && is_whole {
            return;
        }
        match self.read_slots().await {
            Ok(slots) => self.follow(&slots),
            Err(error) => tracing::debug!(%error, "no Redis says who holds which slots"),
        }
        self.try_again().await;
    }

    async fn try_again(&self) {
        let routes = self.routes.load_full();
        join_all(routes.masters.values().map(|(node, key)| node.try_again(key))).await;
    }

    /// Asks a few servers, others each time: masters that answer first, then everybody that was ever named.
    async fn read_slots(&self) -> Result<ClusterRouting, Error> {
        let routes = self.routes.load_full();
        let (up, down): (Vec<_>, Vec<_>) =
            routes.masters.values().map(|(node, _)| Arc::clone(node)).partition(|node| node.is_up());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let known = up.into_iter().chain(down).take(ASKED_AT_ONCE - 1).map(|node| ask(node).boxed());
        let others = self.seeds.iter().cycle().skip(turn % self.seeds.len()).take(self.seeds.len());
        let strangers = others.filter(|seed| !routes.masters.contains_key(*seed));
        let strangers = strangers.map(|seed| self.ask_stranger(seed.clone()).boxed());
        let asked: Vec<_> = known.chain(strangers).take(ASKED_AT_ONCE).collect();
        if asked.is_empty() {
            return Err(Error::new(ErrorKind::Cluster, "nobody to ask"));
        }
        select_ok(asked).await.map(|(slots, _)| slots)
    }

    async fn ask_stranger(&self, server: Server) -> Result<ClusterRouting, Error> {
        ask(Node::start(server, Arc::clone(&self.clock), Arc::default())?).await
    }

    /// Takes a new map over. Masters that stay keep their connections; one that got or lost slots forgets its trust.
    fn follow(&self, slots: &ClusterRouting) {
        if slots.unique_primary_nodes().len() > MAX_MASTERS {
            return tracing::error!("a Redis names too many masters: not believed");
        }
        let old = self.routes.load_full();
        let mut new = Routes::default();
        for slot in slots.slots() {
            let Some(node) = self.node(&slot.primary, &old, &mut new) else { continue };
            new.ranges.push((slot.start, slot.end, node));
        }
        new.ranges.sort_by_key(|(first, ..)| *first);
        for (node, key) in new.masters.values_mut() {
            *key =
                new.ranges.iter().find(|(.., of)| Arc::ptr_eq(of, node)).map_or_else(String::new, key_within);
            if old.masters.contains_key(&node.server) && old.slots_of(node) != slots_of(&new.ranges, node) {
                node.distrust_older("slots");
            }
        }
        if self.has_ended.load(Ordering::Relaxed) {
            return;
        }
        let new = Arc::new(new);
        self.routes.store(Arc::clone(&new));
        for (server, (node, _)) in &old.masters {
            if !new.masters.contains_key(server) {
                tracing::info!(%server, "a Redis is no master any more");
                node.leave();
            }
        }
    }

    fn node(&self, server: &Server, old: &Routes, new: &mut Routes) -> Option<Arc<Node>> {
        let known = new.masters.get(server).or_else(|| old.masters.get(server));
        let node = match known {
            Some((node, _)) => Arc::clone(node),
            None => {
                let node =
                    Node::start(server.clone(), Arc::clone(&self.clock), Arc::clone(&self.troubled)).ok()?;
                node.join();
                node
            }
        };
        new.masters.entry(server.clone()).or_insert_with(|| (Arc::clone(&node), String::new()));
        Some(node)
    }
}

impl Routes {
    fn master(&self, slot: u16) -> Option<&Arc<Node>> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, node) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(node)
    }

    fn slots_of(&self, node: &Arc<Node>) -> Vec<(u16, u16)> {
        slots_of(&self.ranges, node)
    }
}

fn slots_of(ranges: &[(u16, u16, Arc<Node>)], node: &Arc<Node>) -> Vec<(u16, u16)> {
    ranges.iter().filter(|(.., of)| Arc::ptr_eq(of, node)).map(|(first, last, _)| (*first, *last)).collect()
}

/// Some key whose slot lies in the range; each try hits a slot at random.
fn key_within((first, last, _): &(u16, u16, Arc<Node>)) -> String {
    let keys = (0..200_000).map(|n| format!("t:{n}"));
    let mut within = keys.filter(|key| (*first..=*last).contains(&ClusterRouting::hash_key(key.as_bytes())));
    within.next().unwrap_or_default()
}

async fn ask(node: Arc<Node>) -> Result<ClusterRouting, Error> {
    let asked = tokio::time::timeout(CONNECT_TIMEOUT, async {
        node.wait_for_connect().await?;
        node.slots().await
    });
    let slots: Value = asked.await.map_err(|_| Error::new(ErrorKind::Timeout, "no answer in time"))??;
    let routing = ClusterRouting::from_cluster_slots(slots, node.server.host.clone())?;
    if routing.slots().is_empty() {
        return Err(Error::new(ErrorKind::Cluster, "it knows of no slots"));
    }
    Ok(routing)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};

    struct Still;

    impl Clock for Still {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }
    }

    /// `CLUSTER SLOTS`: so many masters of so many slots each, on ports that nobody listens on.
    fn slots(masters: i64, each: i64) -> ClusterRouting {
        let row = |n| {
            let server =
                Value::Array(vec![Value::from("127.0.0.1"), Value::from(1 + n), Value::from(format!("{n}"))]);
            Value::Array(vec![Value::from(n * each), Value::from(n * each + each - 1), server])
        };
        ClusterRouting::from_cluster_slots(Value::Array((0..masters).map(row).collect()), "127.0.0.1")
            .unwrap()
    }

    fn cluster() -> Arc<Cluster> {
        Cluster::start(vec![Server::new("127.0.0.1", 1)], Arc::new(Still))
    }

    #[tokio::test]
    async fn a_slot_has_the_master_that_the_map_names() {
        let cluster = cluster();
        assert!(cluster.master("a").is_none() && cluster.down().is_none());
        cluster.follow(&slots(3, 5000));
        let routes = cluster.routes.load_full();
        let port = |slot| routes.master(slot).map(|node| node.server.port);
        assert_eq!([0, 4999, 5000, 14_999].map(port), [Some(1), Some(1), Some(2), Some(3)]);
        assert_eq!([15_000, 16_383].map(port), [None; 2], "nobody's");
        for (node, key) in routes.masters.values() {
            assert!(Arc::ptr_eq(&cluster.master(key).unwrap(), node), "a trial asks for a slot of its own");
        }
        cluster.follow(&slots(2, 8192));
        assert!(Arc::ptr_eq(cluster.routes.load().master(0).unwrap(), routes.master(0).unwrap()), "kept");
        assert_eq!(cluster.down().unwrap().len(), 2, "until they have answered");
    }

    #[tokio::test]
    async fn a_map_of_too_many_masters_is_not_believed() {
        let cluster = cluster();
        cluster.follow(&slots(2, 8192));
        cluster.follow(&slots(1001, 16));
        assert_eq!(cluster.down().unwrap().len(), 2);
    }
}
