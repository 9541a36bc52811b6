//! The measuring: rounds over a few connections, medians, the idle draw taken off.
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use devcluster::{Cluster, ClusterSpec};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::calls::{CALLS, Call, Item};
use crate::client::Client;
use crate::meter::{Group, Wal, resident_mib};
use crate::report::{self, Row};
use crate::{Options, Outcome};

const CLIENTS: usize = 4;
const SHARDS: u16 = 3;
/// A fresh node believes no copy in Redis for 5 s, and keeps the threads of its start for 10 s.
const SETTLE: Duration = Duration::from_secs(13);
const IDLE: Duration = Duration::from_secs(10);
/// PostgreSQL's backends report their statistics at the latest after so long a rest.
const STATISTICS: Duration = Duration::from_secs(11);
const SYNC_REQUESTS: usize = 50;

/// The cluster under measurement. Node 1 is the one; node 2 has a cheap hash and makes what requests need.
pub struct Bench {
    clients: Vec<Client>,
    nodes: [String; 2],
    groups: [Group; 3],
    cheap_node: Group,
    wal: Wal,
    /// µs of CPU a second that each group uses while nobody asks; the cheap node's last.
    idle: [f64; 4],
}

/// Measures and reports.
pub async fn run(options: &Options) -> Outcome<()> {
    let chosen: Vec<Call> =
        CALLS.into_iter().filter(|call| call.name.contains(options.only.as_str())).collect();
    let floors = if options.only.is_empty() { floors(options).await? } else { Vec::new() };
    let spec = ClusterSpec::default()
        .shards(SHARDS)
        .auth_node(options.auth_node.canonicalize()?)
        .node_config_of(2, "passwords", "memory_kib", "8192")
        .node_config_of(2, "passwords", "passes", "1")
        .node_config("passwords", "wait_ms", "20000");
    let cluster = spec.start().await?;
    let node = cluster.node(1)?.pid.ok_or("node-1 does not run")?;
    let idle_mib = resident_mib(node);
    let mut bench = Bench::open(&cluster).await?;
    let mut rows = Vec::new();
    for call in &chosen {
        let row = bench.measure(*call, options).await?;
        report::progress(&row);
        rows.push(row);
    }
    let loaded_mib = resident_mib(node);
    if !options.no_syncs {
        bench.count_syncs(&chosen, &mut rows).await?;
    }
    let state = cluster.state()?;
    let facts = report::Facts {
        idle: bench.idle,
        rss_mib: (idle_mib, loaded_mib),
        servers: format!(
            "PostgreSQL {}, Redis {}",
            state.servers.postgres_version, state.servers.redis_version
        ),
        requests: options.requests,
        rounds: options.rounds,
        clients: CLIENTS,
    };
    let text = report::text(&facts, &floors, &rows);
    println!("{text}");
    if let Some(path) = &options.write {
        report::write(path, &text)?;
    }
    cluster.stop().await?;
    Ok(())
}

/// The floors' rows, from a process of their own.
async fn floors(options: &Options) -> Outcome<Vec<Row>> {
    let mut process = tokio::process::Command::new(std::env::current_exe()?)
        .arg("floor")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = process.stdout.take().ok_or("the floor has no output")?;
    let address = BufReader::new(stdout).lines().next_line().await?.ok_or("the floor did not start")?;
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).ok_or("the floor ended")?;
    let group = Group::of(BTreeSet::from([pid]));
    let clients = clients("")?;
    let mut rows = Vec::new();
    for (name, path) in [("bare axum handler", "/bare"), ("the same, signing a token", "/sign")] {
        let url = format!("http://{address}{path}");
        let mut rounds = Vec::new();
        for round in 0..=options.rounds {
            let before = group.cpu_us();
            let share = options.requests / CLIENTS;
            let asked = clients.iter().map(|client| async {
                for _ in 0..share {
                    client.http.get(&url).send().await?.bytes().await?;
                }
                Outcome::Ok(())
            });
            futures::future::try_join_all(asked).await?;
            if round > 0 {
                rounds.push((group.cpu_us() - before) / (share * CLIENTS) as f64);
            }
        }
        let row = Row { name, cpu: [median(rounds), 0.0, 0.0], ..Row::default() };
        report::progress(&row);
        rows.push(row);
    }
    process.kill().await?;
    Ok(rows)
}

impl Bench {
    async fn open(cluster: &Cluster) -> Outcome<Self> {
        let state = cluster.state()?;
        let roots = |wanted: &dyn Fn(&str) -> bool| -> BTreeSet<i32> {
            let parts = state.parts.iter().filter(|part| wanted(&part.part.name));
            parts.filter_map(|part| part.process.as_ref()).map(|process| process.pid).collect()
        };
        let groups = [
            Group::of(roots(&|name| name == "node-1")),
            Group::of(roots(&|name| name.starts_with("shard-") && name.ends_with("primary"))),
            Group::of(roots(&|name| name.starts_with("redis-"))),
        ];
        let urls =
            (1..=SHARDS).map(|shard| cluster.shard_primary_dsn(shard)).collect::<Result<Vec<_>, _>>()?;
        let nodes = [cluster.node_url(1)?, cluster.node_url(2)?];
        let clients = clients(&nodes[1])?;
        tokio::time::sleep(SETTLE).await;
        // After the start's own blocking work has ended: what remains are the runtime's workers.
        let cheap_node = Group::of_present_threads(roots(&|name| name == "node-2"));
        let used = |groups: &[Group; 3], cheap: &Group| {
            [groups[0].cpu_us(), groups[1].cpu_us(), groups[2].cpu_us(), cheap.cpu_us()]
        };
        let before = used(&groups, &cheap_node);
        tokio::time::sleep(IDLE).await;
        let after = used(&groups, &cheap_node);
        let idle = std::array::from_fn(|at| (after[at] - before[at]) / IDLE.as_secs_f64());
        let wal = Wal::open(&urls).await?;
        Ok(Self { clients, nodes, groups, cheap_node, wal, idle })
    }

    /// The median round of a call.
    async fn measure(&mut self, call: Call, options: &Options) -> Outcome<Row> {
        let mut rounds: Vec<[f64; 4]> = Vec::new();
        for round in 0..=options.rounds {
            // The first round warms up.
            let most = if round == 0 { options.requests / 4 } else { options.requests };
            let requests = call.requests(most) / CLIENTS * CLIENTS;
            let mut items = self.prepare(call, requests).await?;
            let (wal, cpu, started) = (self.wal.bytes().await?, self.cpu(call), Instant::now());
            let good = self.drive(call, requests, &mut items).await?;
            let spent = started.elapsed().as_secs_f64();
            let (cpu_after, wal_after) = (self.cpu(call), self.wal.bytes().await?);
            if good * 1000 < requests * 999 {
                return Err(format!("{}: {good} good answers of {requests}", call.name).into());
            }
            let idle = self.idle(call);
            let net = |at: usize| (cpu_after[at] - cpu[at] - idle[at] * spent) / good as f64;
            if round > 0 {
                rounds.push([net(0), net(1), net(2), (wal_after - wal) / good as f64]);
            }
        }
        let of = |at: usize| median(rounds.iter().map(|round| round[at]).collect());
        Ok(Row {
            name: call.name,
            cpu: [of(0), of(1), of(2)],
            wal_bytes: Some(of(3)),
            syncs: None,
            hashes: call.hashes,
        })
    }

    /// One client at a time, so that no two commits share a sync.
    async fn count_syncs(&mut self, calls: &[Call], rows: &mut [Row]) -> Outcome<()> {
        let mut prepared = Vec::new();
        for call in calls.iter().filter(|call| call.writes) {
            prepared.push((*call, call.prepare(&self.clients[0], SYNC_REQUESTS).await?));
        }
        tokio::time::sleep(STATISTICS).await;
        let mut before = self.wal.syncs().await?;
        for (call, mut items) in prepared {
            let count = items.len();
            for number in 0..SYNC_REQUESTS {
                call.run(&self.clients[0], &self.nodes[0], &mut items[number % count]).await?;
            }
            tokio::time::sleep(STATISTICS).await;
            let after = self.wal.syncs().await?;
            if let Some(row) = rows.iter_mut().find(|row| row.name == call.name) {
                row.syncs = Some((after - before) / SYNC_REQUESTS as f64);
            }
            before = after;
        }
        Ok(())
    }

    async fn prepare(&self, call: Call, requests: usize) -> Outcome<Vec<Vec<Item>>> {
        let share = requests / CLIENTS;
        futures::future::try_join_all(self.clients.iter().map(|client| call.prepare(client, share))).await
    }

    async fn drive(&self, call: Call, requests: usize, items: &mut [Vec<Item>]) -> Outcome<usize> {
        let share = requests / CLIENTS;
        let node = &self.nodes[usize::from(call.hashes)];
        let driven = self.clients.iter().zip(items).map(|(client, items)| async move {
            let mut good = 0;
            let count = items.len();
            for number in 0..share {
                good += usize::from(call.run(client, node, &mut items[number % count]).await?);
            }
            Outcome::Ok(good)
        });
        Ok(futures::future::try_join_all(driven).await?.into_iter().sum())
    }

    fn cpu(&self, call: Call) -> [f64; 3] {
        let node = if call.hashes { &self.cheap_node } else { &self.groups[0] };
        [node.cpu_us(), self.groups[1].cpu_us(), self.groups[2].cpu_us()]
    }

    fn idle(&self, call: Call) -> [f64; 3] {
        [self.idle[if call.hashes { 3 } else { 0 }], self.idle[1], self.idle[2]]
    }
}

fn clients(cheap: &str) -> Outcome<Vec<Client>> {
    (0..CLIENTS).map(|_| Client::new(cheap)).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
