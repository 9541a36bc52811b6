//! Which parts a cluster has, what they are called and where they listen.

use std::net::TcpListener;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ports::{PortBlock, rest_of_block};
use crate::spec::ClusterSpec;

const DIRECTORY_PORT: u16 = 5600;
const REDIS_PORT: u16 = 7600;
const NODE_PORT: u16 = 3002;
const STEP: u16 = 10;
const MOST_SHARDS: u16 = 18;
const MOST_REPLICAS: u16 = 9;
/// Shards that have the last digit of a port to themselves. The ones after them live in the upper half of the hundred,
/// where nobody has a replica while there are at most four.
const LOWER_SHARDS: u16 = 9;
const UPPER_HALF: u16 = DIRECTORY_PORT + 50;
const MOST_REPLICAS_OF_MANY: u16 = 4;
const MOST_NODES: u16 = 50;
const REDIS_BUS: u16 = 10_000;
/// Redis masters; each has one replica.
pub(crate) const REDIS_MASTERS: u16 = 3;

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Kind {
    /// The directory database.
    Directory,
    /// A shard's first primary.
    ShardPrimary {
        /// Which shard.
        shard: u16,
    },
    /// A shard's replica.
    ShardReplica {
        /// Which shard.
        shard: u16,
        /// Which of its replicas.
        replica: u16,
    },
    /// A Redis server.
    Redis {
        /// Which one.
        number: u16,
    },
    /// An auth node.
    Node {
        /// Which one.
        number: u16,
    },
}

/// One part with its ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The name for `kill`, `logs` and the others.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it listens.
    pub port: u16,
    /// Redis: the cluster bus. A node: the ops listener.
    pub second_port: Option<u16>,
}

impl Kind {
    /// The part's name (NAMES, The local cluster).
    pub fn name(self) -> String {
        match self {
            Self::Directory => "directory".into(),
            Self::ShardPrimary { shard } => format!("shard-{shard}-primary"),
            Self::ShardReplica { shard, replica } => format!("shard-{shard}-replica-{replica}"),
            Self::Redis { number } => format!("redis-{number}"),
            Self::Node { number } => format!("node-{number}"),
        }
    }

    /// The shard whose data it holds.
    pub fn shard(self) -> Option<u16> {
        match self {
            Self::ShardPrimary { shard } | Self::ShardReplica { shard, .. } => Some(shard),
            _ => None,
        }
    }

    /// Whether it is a PostgreSQL server.
    pub fn is_postgres(self) -> bool {
        matches!(self, Self::Directory) || self.shard().is_some()
    }

    /// The fixed ports. A shard's keep theirs whatever the number of replicas, so that kept data fits.
    fn fixed_ports(self) -> (u16, Option<u16>) {
        match self {
            Self::Directory => (DIRECTORY_PORT, None),
            Self::ShardPrimary { shard } => (primary_port(shard), None),
            Self::ShardReplica { shard, replica } => (primary_port(shard) + STEP * replica, None),
            Self::Redis { number } => (REDIS_PORT + number - 1, Some(REDIS_PORT + number - 1 + REDIS_BUS)),
            Self::Node { number } => {
                let port = NODE_PORT + STEP * (number - 1);
                (port, Some(port + 1))
            }
        }
    }

    fn needs_second_port(self) -> bool {
        matches!(self, Self::Redis { .. } | Self::Node { .. })
    }
}

fn primary_port(shard: u16) -> u16 {
    let upper = shard.saturating_sub(LOWER_SHARDS);
    if upper == 0 { DIRECTORY_PORT + shard } else { UPPER_HALF + upper }
}

/// The parts of a cluster, in the order they are shown; on the fixed ports unless a block is given.
pub(crate) fn plan(spec: &ClusterSpec, block: Option<&PortBlock>) -> Result<Vec<Part>> {
    check(spec)?;
    let mut free = block.map(PortBlock::ports);
    let mut next =
        || free.as_mut().map(|ports| ports.next().ok_or_else(|| Error::new("the block of ports is full")));
    let place = |kind: Kind| {
        let (port, second_port) = match next() {
            None => kind.fixed_ports(),
            Some(port) if kind.needs_second_port() => (port?, next().transpose()?),
            Some(port) => (port?, None),
        };
        Ok(Part { name: kind.name(), kind, port, second_port })
    };
    kinds(spec).into_iter().map(place).collect()
}

/// The parts of one more shard, the primary first; after the `highest` port in use, or on the fixed ports.
pub(crate) fn plan_shard(shard: u16, replicas: u16, highest: Option<u16>) -> Result<Vec<Part>> {
    check_shards(shard, replicas)?;
    let mut free = highest.map(rest_of_block);
    let mut next = |kind: Kind| match free.as_mut() {
        None => Ok(kind.fixed_ports().0),
        Some(ports) => ports.next().ok_or_else(|| Error::new("the block of ports is full")),
    };
    let place = |kind: Kind| Ok(Part { name: kind.name(), kind, port: next(kind)?, second_port: None });
    shard_kinds(shard, replicas).map(place).collect()
}

fn shard_kinds(shard: u16, replicas: u16) -> impl Iterator<Item = Kind> {
    let replicas = (1..=replicas).map(move |replica| Kind::ShardReplica { shard, replica });
    std::iter::once(Kind::ShardPrimary { shard }).chain(replicas)
}

fn kinds(spec: &ClusterSpec) -> Vec<Kind> {
    let shard = |shard| shard_kinds(shard, spec.replicas);
    let redis = if spec.redis { REDIS_MASTERS * 2 } else { 0 };
    let mut kinds = vec![Kind::Directory];
    kinds.extend((1..=spec.shards).flat_map(shard));
    kinds.extend((1..=redis).map(|number| Kind::Redis { number }));
    kinds.extend((1..=spec.nodes).map(|number| Kind::Node { number }));
    kinds
}

fn check(spec: &ClusterSpec) -> Result<()> {
    check_shards(spec.shards, spec.replicas)?;
    if spec.nodes > MOST_NODES {
        return Err(Error::new(format!("a local cluster has at most {MOST_NODES} nodes")));
    }
    if spec.nodes > 0 && !spec.redis {
        return Err(Error::new(
            "nodes need Redis to be configured: start it, and kill it to see them without",
        ));
    }
    Ok(())
}

fn check_shards(shards: u16, replicas: u16) -> Result<()> {
    if !(1..=MOST_SHARDS).contains(&shards) {
        return Err(Error::new(format!("a local cluster has 1 to {MOST_SHARDS} shards")));
    }
    let most = if shards > LOWER_SHARDS { MOST_REPLICAS_OF_MANY } else { MOST_REPLICAS };
    if replicas > most {
        return Err(Error::new(format!("each of {shards} local shards has at most {most} replicas")));
    }
    Ok(())
}

/// Fails with a sentence if somebody listens where a part is to listen.
pub(crate) fn check_ports_free(parts: &[Part]) -> Result<()> {
    for part in parts {
        for port in std::iter::once(part.port).chain(part.second_port) {
            if let Err(cause) = TcpListener::bind(("127.0.0.1", port)) {
                return Err(Error::new(format!(
                    "port {port}, which {} needs, cannot be used: {cause}",
                    part.name
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_cluster_has_the_agreed_names_and_ports() {
        let parts = plan(&ClusterSpec::default(), None).unwrap();
        let shown: Vec<String> = parts.iter().map(|p| format!("{}:{}", p.name, p.port)).collect();
        let expected = "directory:5600 shard-1-primary:5601 shard-1-replica-1:5611 shard-2-primary:5602 \
                        shard-2-replica-1:5612 shard-3-primary:5603 shard-3-replica-1:5613 redis-1:7600 redis-2:7601 \
                        redis-3:7602 redis-4:7603 redis-5:7604 redis-6:7605 node-1:3002 node-2:3012";
        assert_eq!(shown.join(" "), expected);
        assert_eq!(parts.last().unwrap().second_port, Some(3013));
    }

    #[test]
    fn no_fixed_port_is_given_twice() {
        for (shards, replicas) in [(9, 9), (18, 4)] {
            let spec = ClusterSpec::default().shards(shards).replicas(replicas).nodes(50);
            let parts = plan(&spec, None).unwrap();
            let mut ports: Vec<u16> =
                parts.iter().flat_map(|p| std::iter::once(p.port).chain(p.second_port)).collect();
            let count = ports.len();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), count);
            let postgres = parts.iter().filter(|part| part.kind.is_postgres());
            assert!(postgres.into_iter().all(|part| (5600..=5699).contains(&part.port)));
        }
    }

    #[test]
    fn the_largest_clusters_fit_a_block_of_free_ports() {
        let block = PortBlock::claim().unwrap();
        for (shards, replicas) in [(9, 9), (18, 4)] {
            let spec = ClusterSpec::default().shards(shards).replicas(replicas).nodes(50);
            assert!(plan(&spec, Some(&block)).is_ok());
        }
    }

    #[test]
    fn free_ports_differ() {
        let block = PortBlock::claim().unwrap();
        let parts = plan(&ClusterSpec::default(), Some(&block)).unwrap();
        let mut ports: Vec<u16> =
            parts.iter().flat_map(|p| std::iter::once(p.port).chain(p.second_port)).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 15 + 8);
    }

    #[test]
    fn one_more_shard_has_the_agreed_ports_or_the_next_free_ones() {
        let ports = |highest| plan_shard(4, 2, highest).unwrap().iter().map(|p| p.port).collect::<Vec<_>>();
        assert_eq!(ports(None), [5604, 5614, 5624]);
        assert_eq!(ports(Some(20_023)), [20_024, 20_025, 20_026]);
        let tenth: Vec<u16> = plan_shard(10, 1, None).unwrap().iter().map(|p| p.port).collect();
        assert_eq!(tenth, [5651, 5661]);
        assert!(plan_shard(10, 5, None).is_err() && plan_shard(19, 1, None).is_err());
    }

    #[test]
    fn a_busy_port_is_named_with_its_part() {
        let busy = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = busy.local_addr().unwrap().port();
        let part = Part { name: "directory".into(), kind: Kind::Directory, port, second_port: None };
        let sentence = check_ports_free(&[part]).unwrap_err().to_string();
        assert!(sentence.contains(&port.to_string()) && sentence.contains("directory"));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(plan(&ClusterSpec::default().shards(0), None).is_err());
        assert!(plan(&ClusterSpec::default().shards(19), None).is_err());
        assert!(plan(&ClusterSpec::default().shards(10).replicas(5), None).is_err());
        assert!(plan(&ClusterSpec::default().redis(false), None).is_err());
    }
}
