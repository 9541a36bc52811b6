//! A cluster under measurement: its clients, and what its processes have used so far.
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use devcluster::{Cluster, ClusterSpec};

use crate::Outcome;
use crate::calls::{Call, Item};
use crate::client::Client;
use crate::meter::{self, Group};

/// Connections to a node.
pub const CLIENTS: usize = 4;
/// A fresh node believes no copy in Redis for 5 s, and keeps the threads of its start for 10 s.
pub const SETTLE: Duration = Duration::from_secs(13);

/// µs of CPU: node 1, PostgreSQL, Redis, and node 2 without its hashes.
pub type Used = [f64; 4];

/// In which order requests come to what was prepared for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other, over and over.
    Mixed,
    /// All requests of one before those of the next: of [`Bench::by_bucket`], shard after shard.
    InTurn,
}

/// Node 1 is the one that is measured; node 2 has a cheap hash, makes what requests need, and is measured where hashes
/// are computed.
pub struct Bench {
    pub clients: Vec<Client>,
    pub nodes: [String; 2],
    groups: [Group; 3],
    cheap_node: Group,
}

/// The cluster that is measured.
pub fn spec(auth_node: &Path, shards: u16) -> Outcome<ClusterSpec> {
    Ok(ClusterSpec::default()
        .shards(shards)
        .auth_node(auth_node.canonicalize()?)
        .node_config_of(2, "passwords", "memory_kib", "8192")
        .node_config_of(2, "passwords", "passes", "1")
        .node_config("passwords", "wait_ms", "20000"))
}

/// The processes of the parts that are wanted.
pub fn group(cluster: &Cluster, wanted: impl Fn(&str) -> bool) -> Outcome<Group> {
    Ok(Group::of(roots(cluster, wanted)?))
}

/// A primary of a shard, with everything that it runs.
pub fn is_primary(name: &str) -> bool {
    name.starts_with("shard-") && name.ends_with("primary")
}

fn roots(cluster: &Cluster, wanted: impl Fn(&str) -> bool) -> Outcome<BTreeSet<i32>> {
    let state = cluster.state()?;
    let parts = state.parts.iter().filter(|part| wanted(&part.part.name));
    Ok(parts.filter_map(|part| part.process.as_ref()).map(|process| process.pid).collect())
}

impl Bench {
    /// Of a cluster that has run for [`SETTLE`]: when the start's own blocking work has ended, what remains are the
    /// runtime's workers.
    pub fn open(cluster: &Cluster) -> Outcome<Self> {
        let groups = [
            group(cluster, |name| name == "node-1")?,
            group(cluster, is_primary)?,
            group(cluster, |name| name.starts_with("redis-"))?,
        ];
        let nodes = [cluster.node_url(1)?, cluster.node_url(2)?];
        let clients = clients(&nodes[1])?;
        let cheap_node = Group::of_present_threads(roots(cluster, |name| name == "node-2")?);
        Ok(Self { clients, nodes, groups, cheap_node })
    }

    /// So far.
    pub fn used(&self) -> Used {
        let parents = meter::parents();
        let [node, postgres, redis] = &self.groups;
        [node, postgres, redis, &self.cheap_node].map(|group| group.cpu_us_among(&parents))
    }

    /// Everything that `requests` of a call need, by client.
    pub async fn prepare(&self, call: Call, requests: usize) -> Outcome<Vec<Vec<Item>>> {
        let share = requests / CLIENTS;
        futures::future::try_join_all(self.clients.iter().map(|client| call.prepare(client, share))).await
    }

    /// The same items, dealt anew so that all clients are at the same buckets at the same time.
    pub fn by_bucket(&self, items: Vec<Vec<Item>>) -> Vec<Vec<Item>> {
        let mut all: Vec<Item> = items.into_iter().flatten().collect();
        all.sort_by_key(|item| item.bucket);
        let mut dealt = vec![Vec::new(); self.clients.len()];
        for (number, item) in all.into_iter().enumerate() {
            dealt[number % self.clients.len()].push(item);
        }
        dealt
    }

    /// Makes the requests, all clients at once; the good answers, which must be nearly all.
    pub async fn drive(
        &self,
        call: Call,
        requests: usize,
        items: &mut [Vec<Item>],
        order: Order,
    ) -> Outcome<usize> {
        let share = requests / self.clients.len();
        let node = &self.nodes[usize::from(call.hashes)];
        let driven = self.clients.iter().zip(items).map(|(client, items)| async move {
            let mut good = 0;
            let count = items.len();
            for number in 0..share {
                let at = match order {
                    Order::Mixed => number % count,
                    Order::InTurn => number * count / share,
                };
                good += usize::from(call.run(client, node, &mut items[at]).await?);
            }
            Outcome::Ok(good)
        });
        let good: usize = futures::future::try_join_all(driven).await?.into_iter().sum();
        if good * 1000 < requests * 999 {
            return Err(format!("{}: {good} good answers of {requests}", call.name).into());
        }
        Ok(good)
    }
}

/// What a call used of node, PostgreSQL and Redis, of what all used: where it hashes, node 2 answered.
pub fn of_call(call: Call, used: Used) -> [f64; 3] {
    [used[if call.hashes { 3 } else { 0 }], used[1], used[2]]
}

/// What was used between two moments, less what would have been used anyhow; `idle` is a second's.
pub fn beyond_idle(before: Used, after: Used, idle: Used, spent: Duration) -> Used {
    std::array::from_fn(|at| after[at] - before[at] - idle[at] * spent.as_secs_f64())
}

/// One connection each.
pub fn clients(cheap: &str) -> Outcome<Vec<Client>> {
    (0..CLIENTS).map(|_| Client::new(cheap)).collect()
}

/// A second's use of clusters that nobody asks, all at once.
pub async fn idle(benches: &[&Bench], time: Duration) -> Vec<Used> {
    let before: Vec<Used> = benches.iter().map(|bench| bench.used()).collect();
    tokio::time::sleep(time).await;
    let after = benches.iter().map(|bench| bench.used());
    let rate = |(before, after): (&Used, Used)| {
        std::array::from_fn(|at| (after[at] - before[at]) / time.as_secs_f64())
    };
    before.iter().zip(after).map(rate).collect()
}
