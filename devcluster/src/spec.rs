//! What cluster is wanted: a builder with the local profile as its default.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::servers::ServerChoice;

/// How ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ports {
    /// Those of NAMES: 5600…, 7600…, 3002….
    Fixed,
    /// Free ones, so that many test clusters run side by side.
    #[default]
    Free,
}

/// Is told what goes on while a cluster starts, a line at a time.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// One changed key of a node's configuration; `value` is TOML text, so strings carry their quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Only this node, or all.
    pub node: Option<u16>,
    /// The table, `limits` or `a.b`.
    pub section: String,
    /// The key.
    pub key: String,
    /// Its value as TOML text.
    pub value: String,
}

/// A cluster to start. The default is that of NAMES with free ports in a temporary folder.
#[derive(Clone)]
pub struct ClusterSpec {
    pub(crate) shards: u16,
    pub(crate) replicas: u16,
    pub(crate) nodes: u16,
    pub(crate) redis: bool,
    pub(crate) ports: Ports,
    pub(crate) home: Option<PathBuf>,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) servers: ServerChoice,
    pub(crate) auth_node: Option<PathBuf>,
    pub(crate) guard: Option<PathBuf>,
    pub(crate) fresh: bool,
    pub(crate) production_limits: bool,
    pub(crate) overrides: Vec<Override>,
    pub(crate) progress: Option<Progress>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            shards: 3,
            replicas: 1,
            nodes: 2,
            redis: true,
            ports: Ports::default(),
            home: None,
            cache: None,
            servers: ServerChoice::default(),
            auth_node: None,
            guard: None,
            fresh: false,
            production_limits: false,
            overrides: Vec::new(),
            progress: None,
        }
    }
}

impl fmt::Debug for ClusterSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shards, replicas, nodes, redis, ports, home, servers, .. } = self;
        write!(
            f,
            "ClusterSpec({shards} shards × {replicas} replicas, {nodes} nodes, redis {redis}, {ports:?}, "
        )?;
        write!(f, "{home:?}, {servers:?})")
    }
}

impl ClusterSpec {
    /// How many shards (1 to 18; with more than 9 of them at most 4 replicas each).
    pub fn shards(mut self, count: u16) -> Self {
        self.shards = count;
        self
    }

    /// Replicas of each shard; from two on they are synchronous, any one of them.
    pub fn replicas(mut self, count: u16) -> Self {
        self.replicas = count;
        self
    }

    /// How many auth nodes; none means PostgreSQL and Redis alone, with empty databases.
    pub fn nodes(mut self, count: u16) -> Self {
        self.nodes = count;
        self
    }

    /// Whether to start the Redis cluster.
    pub fn redis(mut self, wanted: bool) -> Self {
        self.redis = wanted;
        self
    }

    /// Fixed or free ports.
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Keeps everything in this folder. Without it: a temporary folder that is removed at the end.
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// Where fetched servers are kept (default: `.tessera` of the checkout around the current folder).
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Where servers may come from.
    pub fn servers(mut self, choice: ServerChoice) -> Self {
        self.servers = choice;
        self
    }

    /// The `auth-node` executable.
    pub fn auth_node(mut self, program: impl Into<PathBuf>) -> Self {
        self.auth_node = Some(program.into());
        self
    }

    /// The `devcluster` executable, which guards this cluster against our own sudden death.
    pub fn guard(mut self, program: impl Into<PathBuf>) -> Self {
        self.guard = Some(program.into());
        self
    }

    /// Wipes data and secrets first.
    pub fn fresh(mut self, wipe: bool) -> Self {
        self.fresh = wipe;
        self
    }

    /// Keeps production's limits by address and by session, which are lifted otherwise.
    pub fn production_limits(mut self, keep: bool) -> Self {
        self.production_limits = keep;
        self
    }

    /// Sets one key in every node's configuration; `value` is TOML text.
    pub fn node_config(self, section: &str, key: &str, value: &str) -> Self {
        self.set(None, section, key, value)
    }

    /// Sets one key in one node's configuration; `value` is TOML text.
    pub fn node_config_of(self, node: u16, section: &str, key: &str, value: &str) -> Self {
        self.set(Some(node), section, key, value)
    }

    /// Is told what goes on.
    pub fn progress(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(tell));
        self
    }

    pub(crate) fn tell(&self, line: &str) {
        if let Some(progress) = &self.progress {
            progress(line);
        }
    }

    fn set(mut self, node: Option<u16>, section: &str, key: &str, value: &str) -> Self {
        self.overrides.push(Override { node, section: section.into(), key: key.into(), value: value.into() });
        self
    }
}
