//! From a spec to a running cluster: servers first, then migrations and placement, then nodes.

use std::collections::BTreeMap;
use std::fs::File;

use futures::future::{try_join, try_join_all};

use crate::bootstrap;
use crate::error::{Context, Error, Result};
use crate::home::Home;
use crate::plan::{Kind, Part, check_ports_free, plan};
use crate::ports::PortBlock;
use crate::postgres::{self, Role};
use crate::secrets;
use crate::servers::{self, Servers};
use crate::site::Site;
use crate::spec::{ClusterSpec, Ports};
use crate::state::{self, PartState, State};
use crate::{account, node, redis};

/// Everything is decided and written down; nothing runs yet.
pub(crate) struct Prepared {
    pub site: Site,
    pub state: State,
    /// Free ports, ours as long as this is kept; the fixed ones without.
    block: Option<PortBlock>,
    /// Held until the cluster is up: two `up`s at once would fight over ports and data.
    _starting: File,
}

impl Prepared {
    /// The cluster is up: another `up` may look at it. What comes back keeps its free ports from other clusters.
    pub(crate) fn started(self) -> Option<PortBlock> {
        self.block
    }
}

/// Decides and writes down what will run. `Ok(Err(state))` is the cluster that runs already.
pub(crate) fn prepare(spec: &ClusterSpec, home: &Home) -> Result<std::result::Result<Prepared, State>> {
    let account = account::for_servers()?;
    std::fs::create_dir_all(home.root()).could_not(format_args!("create {}", home.root().display()))?;
    let starting = lock_start(home)?;
    if let Some(running) = state::read(home)?.filter(State::any_alive) {
        return Ok(Err(running));
    }
    if spec.fresh {
        home.wipe()?;
    }
    let kept = state::kept_primaries(home)?;
    let block = (spec.ports == Ports::Free).then(PortBlock::claim).transpose()?;
    let parts = plan(&with_added_shards(spec, &kept), block.as_ref())?;
    check_ports_free(&parts)?;
    let cache = spec.cache.clone().unwrap_or_else(|| home.root().to_path_buf());
    spec.tell("looking for PostgreSQL and Redis");
    let servers = servers::locate(spec.servers, &cache, account.as_ref())?;
    tell_servers(spec, &servers);
    home.prepare(account.as_ref())?;
    secrets::create_missing(&home.secrets())?;
    let primaries = primaries(kept, &parts)?;
    let part = |part: &Part| PartState { part: part.clone(), argv: Vec::new(), process: None };
    let state = State {
        servers,
        account,
        replicas: spec.replicas,
        ports: spec.ports,
        auth_node: spec.auth_node.as_ref().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())),
        primaries,
        stopping: false,
        parts: parts.iter().map(part).collect(),
    };
    state::write(home, &state)?;
    node::write_configs(spec, home, &parts)?;
    let site = Site::of(home, &state)?;
    postgres::write_passfile(&site)?;
    Ok(Ok(Prepared { site, state, block, _starting: starting }))
}

/// Starts all parts and waits until they are ready. On failure the caller stops what was started.
pub(crate) async fn start_all(spec: &ClusterSpec, prepared: &Prepared) -> Result<()> {
    let Prepared { site, state, .. } = prepared;
    try_join(start_postgres(spec, site, state), start_redis(spec, site, state)).await?;
    let nodes: Vec<&Part> =
        state.parts.iter().map(|p| &p.part).filter(|p| matches!(p.kind, Kind::Node { .. })).collect();
    let Some(first) = nodes.first() else { return Ok(()) };
    spec.tell("migrating the databases and placing the buckets");
    node::migrate(site, first).await?;
    bootstrap::register_shards(site, state, state.primaries.keys().copied()).await?;
    node::migrate(site, first).await?;
    bootstrap::assign_buckets(site, state).await?;
    try_join_all(nodes.into_iter().map(|part| async move {
        let process = node::start(site, part)?;
        node::wait_ready(site, part, &process).await?;
        spec.tell(&format!("{} is ready", part.name));
        Ok::<(), Error>(())
    }))
    .await?;
    Ok(())
}

async fn start_postgres(spec: &ClusterSpec, site: &Site, state: &State) -> Result<()> {
    let primaries = state.parts.iter().map(|p| &p.part).filter(|part| state.is_primary(part));
    let groups = primaries.map(|primary| async move {
        let replicas = state.siblings(primary);
        start_group(site, primary, &replicas).await?;
        match replicas.is_empty() {
            true => spec.tell(&format!("{} is ready", primary.name)),
            false => spec.tell(&format!("{} is ready and streams to {}", primary.name, names(&replicas))),
        }
        Ok::<(), Error>(())
    });
    try_join_all(groups).await?;
    Ok(())
}

/// Makes, starts and waits for a primary and the replicas that follow it.
pub(crate) async fn start_group(site: &Site, primary: &Part, replicas: &[Part]) -> Result<()> {
    postgres::create_primary(site, primary).await?;
    let process = postgres::start(site, primary, &Role::Primary { replicas })?;
    postgres::wait_ready(site, primary, &process).await?;
    postgres::admin::set_up_primary(site, primary, replicas).await?;
    try_join_all(replicas.iter().map(|replica| start_replica(site, replica, primary))).await?;
    postgres::wait_streaming(site, primary, replicas).await
}

/// Makes, starts and waits for one replica.
pub(crate) async fn start_replica(site: &Site, replica: &Part, primary: &Part) -> Result<()> {
    postgres::create_replica(site, replica, primary).await?;
    let process = postgres::start(site, replica, &Role::Replica { of: primary })?;
    postgres::wait_ready(site, replica, &process).await
}

async fn start_redis(spec: &ClusterSpec, site: &Site, state: &State) -> Result<()> {
    let parts: Vec<Part> =
        state.parts.iter().map(|p| p.part.clone()).filter(|p| matches!(p.kind, Kind::Redis { .. })).collect();
    if parts.is_empty() {
        return Ok(());
    }
    redis::start_cluster(site, &parts).await?;
    spec.tell(&format!("the Redis cluster of {} is whole", parts.len()));
    Ok(())
}

fn names(parts: &[Part]) -> String {
    parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(" and ")
}

fn tell_servers(spec: &ClusterSpec, servers: &Servers) {
    let Servers { postgres, postgres_version, redis, redis_version } = servers;
    spec.tell(&format!("PostgreSQL {postgres_version} from {}", postgres.display()));
    spec.tell(&format!("{} {redis_version}", redis.display()));
}

/// The spec with the shards that `add-shard` gave this data since.
fn with_added_shards(spec: &ClusterSpec, kept: &BTreeMap<u16, String>) -> ClusterSpec {
    let last = kept.keys().next_back().copied().unwrap_or_default();
    spec.clone().shards(spec.shards.max(last))
}

/// Each shard's primary: the first one, unless a promotion changed that while this data was in use.
fn primaries(kept: BTreeMap<u16, String>, parts: &[Part]) -> Result<BTreeMap<u16, String>> {
    let first = parts.iter().filter_map(|part| match part.kind {
        Kind::ShardPrimary { shard } => Some((shard, part.name.clone())),
        _ => None,
    });
    let mut primaries: BTreeMap<u16, String> = first.collect();
    for (shard, name) in kept {
        if !parts.iter().any(|part| part.name == name) {
            return Err(Error::new(format!(
                "{name} was promoted and holds the data of shard {shard}: keep it (REPLICAS), or use FRESH=1"
            )));
        }
        primaries.insert(shard, name);
    }
    Ok(primaries)
}

/// Held by whoever starts parts of a whole cluster: one at a time.
pub(crate) fn lock_start(home: &Home) -> Result<File> {
    let path = home.root().join("start.lock");
    let file = File::create(&path).could_not(format_args!("create {}", path.display()))?;
    file.try_lock().map_err(|_| {
        Error::new(format!("a cluster is being started from {} right now", home.root().display()))
    })?;
    Ok(file)
}
