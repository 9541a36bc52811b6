//! A cluster under measurement: its clients, and what its processes have used so far.
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use devcluster::{Cluster, ClusterSpec};

use crate::Outcome;
use crate::calls::{Call, Item, Needs};
use crate::client::Client;
use crate::meter::{self, Group};

/// A fresh node believes no copy in Redis for 5 s, and keeps the threads of its start for 10 s.
pub const SETTLE: Duration = Duration::from_secs(13);

/// µs of CPU: node 1, PostgreSQL's primaries, Redis, node 2 without its hashes, PostgreSQL's replicas, and of the primaries
/// the backends that serve nodes.
pub type Used = [f64; 6];

/// What some requests took, together with what goes on anyhow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    pub used: Used,
    pub spent: Duration,
    pub good: usize,
}

/// Which of these are nodes.
const NODES: [usize; 2] = [0, 3];

/// Node 1 is the one that is measured; node 2 has a cheap hash, makes what requests need, and is measured where hashes
/// are computed.
pub struct Bench {
    pub clients: Vec<Client>,
    pub nodes: [String; 2],
    groups: [Group; 6],
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
    pub fn open(cluster: &Cluster, count: usize) -> Outcome<Self> {
        let groups = [
            group(cluster, |name| name == "node-1")?,
            group(cluster, is_primary)?,
            group(cluster, |name| name.starts_with("redis-"))?,
            Group::of_present_threads(roots(cluster, |name| name == "node-2")?),
            group(cluster, |name| name.starts_with("shard-") && name.contains("replica"))?,
            Group::of_titled(roots(cluster, is_primary)?, " tessera_app "),
        ];
        let nodes = [cluster.node_url(1)?, cluster.node_url(2)?];
        let clients = clients(&nodes[1], count)?;
        Ok(Self { clients, nodes, groups })
    }

    /// The nodes on one core, and what they ask on another, if there are two.
    pub fn pin(&self) -> Outcome<()> {
        if std::thread::available_parallelism()?.get() < 2 {
            return Ok(());
        }
        for (number, group) in self.groups.iter().enumerate() {
            meter::pin(&group.roots, usize::from(!NODES.contains(&number)))?;
        }
        Ok(())
    }

    /// So far.
    pub fn used(&self) -> Used {
        let parents = meter::parents();
        self.groups.each_ref().map(|group| group.cpu_us_among(&parents))
    }

    /// Everything that `requests` of a call need, by client.
    pub async fn prepare(&self, call: Call, requests: usize) -> Outcome<Vec<Vec<Item>>> {
        let share = requests / self.clients.len();
        futures::future::try_join_all(self.clients.iter().map(|client| call.prepare(client, share))).await
    }

    /// The same items, dealt anew so that all clients are at the same buckets at the same time; or `scattered`, so that
    /// neighbours lie far apart.
    pub fn by_bucket(&self, items: Vec<Vec<Item>>, scattered: bool) -> Vec<Vec<Item>> {
        let mut all: Vec<Item> = items.into_iter().flatten().collect();
        let place = |item: &Item| item.bucket.map_or(0, u16::from);
        all.sort_by_key(|item| if scattered { place(item).reverse_bits() } else { place(item) });
        let mut dealt = vec![Vec::new(); self.clients.len()];
        for (number, item) in all.into_iter().enumerate() {
            dealt[number % self.clients.len()].push(item);
        }
        dealt
    }

    /// Makes the requests, all clients at once, each with its items over and over; the good answers, which must be nearly
    /// all.
    pub async fn drive(&self, call: Call, requests: usize, items: &mut [&mut [Item]]) -> Outcome<usize> {
        let share = requests / self.clients.len();
        let node = &self.nodes[usize::from(call.hashes)];
        let driven = self.clients.iter().zip(items).map(|(client, items)| async move {
            let mut good = 0;
            let count = items.len();
            for number in 0..share {
                good += usize::from(call.run(client, node, &mut items[number % count]).await?);
            }
            Outcome::Ok(good)
        });
        let good: usize = futures::future::try_join_all(driven).await?.into_iter().sum();
        let requests = share * self.clients.len();
        if good * 1000 < requests * 999 {
            return Err(format!("{}: {good} good answers of {requests}", call.name).into());
        }
        Ok(good)
    }

    /// The same, measured.
    pub async fn take(&self, call: Call, requests: usize, items: &mut [&mut [Item]]) -> Outcome<Taken> {
        let (before, started) = (self.used(), Instant::now());
        let good = self.drive(call, requests, items).await?;
        Ok(self.since(before, started, good))
    }

    /// What so many good answers took, and all the rest.
    pub fn since(&self, before: Used, started: Instant, good: usize) -> Taken {
        // To look takes milliseconds, in which servers use what they use while nobody asks: they count too.
        let (after, spent) = (self.used(), started.elapsed());
        Taken { used: std::array::from_fn(|at| after[at] - before[at]), spent, good }
    }

    /// A second's use while nobody asks.
    pub async fn idle(&self, time: Duration) -> Used {
        let (before, started) = (self.used(), Instant::now());
        tokio::time::sleep(time).await;
        self.since(before, started, 0).a_second()
    }

    /// Makes the requests and measures the second half of them; the first warms up what was not asked for a while. Where
    /// items serve one request each there are as many as the client that has the fewest allows.
    pub async fn take_warm(&self, call: Call, requests: usize, items: &mut [&mut [Item]]) -> Outcome<Taken> {
        if matches!(call.needs, Needs::Shared | Needs::Nothing) {
            self.drive(call, requests / 2, items).await?;
            return self.take(call, requests - requests / 2, items).await;
        }
        let least = items.iter().map(|items| items.len()).min().unwrap_or_default();
        let (mut cold, mut warm): (Vec<_>, Vec<_>) =
            items.iter_mut().map(|items| items[..least].split_at_mut(least / 2)).unzip();
        let clients = self.clients.len();
        self.drive(call, least / 2 * clients, &mut cold).await?;
        self.take(call, (least - least / 2) * clients, &mut warm).await
    }
}

impl Taken {
    pub fn add(&mut self, other: Self) {
        for (sum, used) in self.used.iter_mut().zip(other.used) {
            *sum += used;
        }
        self.spent += other.spent;
        self.good += other.good;
    }

    /// What a second took.
    pub fn a_second(&self) -> Used {
        self.used.map(|used| used / self.spent.as_secs_f64())
    }

    /// Less what would have been used anyhow; `idle` is a second's.
    pub fn beyond(&self, idle: Used) -> Used {
        std::array::from_fn(|at| self.used[at] - idle[at] * self.spent.as_secs_f64())
    }
}

/// All of every client's items.
pub fn whole(items: &mut [Vec<Item>]) -> Vec<&mut [Item]> {
    items.iter_mut().map(Vec::as_mut_slice).collect()
}

/// What a call used of node, primaries and Redis, of what all used: where it hashes, node 2 answered.
pub fn of_call(call: Call, used: Used) -> [f64; 3] {
    [used[if call.hashes { 3 } else { 0 }], used[1], used[2]]
}

/// And of the backends of the primaries.
pub fn of_backends(used: Used) -> f64 {
    used[5]
}

/// And of the replicas.
pub fn of_replicas(used: Used) -> f64 {
    used[4]
}

/// One connection each.
pub fn clients(cheap: &str, count: usize) -> Outcome<Vec<Client>> {
    (0..count).map(|_| Client::new(cheap)).collect()
}
