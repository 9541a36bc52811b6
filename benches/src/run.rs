//! The measuring: rounds over a few connections, medians, the idle draw taken off.
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use benches::stats::median;
use devcluster::Cluster;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::bench::{self, Bench, SETTLE, Used, clients, of_call, of_replicas, whole};
use crate::calls::{CALLS, Call};
use crate::meter::{Group, Wal, resident_mib};
use crate::report::{self, Row};
use crate::{Options, Outcome};

/// What writes this section.
pub const COMMAND: &str = "make figures";
/// Connections to the node.
const CLIENTS: usize = 4;
const SHARDS: u16 = 3;
const IDLE: Duration = Duration::from_secs(10);
/// PostgreSQL's backends report their statistics at the latest after so long a rest.
const STATISTICS: Duration = Duration::from_secs(11);
const SYNC_REQUESTS: usize = 50;

struct Figures {
    bench: Bench,
    wal: Wal,
    /// A second's, while nobody asks.
    idle: Used,
}

/// Measures and reports.
pub async fn run(options: &Options) -> Outcome<()> {
    let chosen: Vec<Call> =
        CALLS.into_iter().filter(|call| call.name.contains(options.only.as_str())).collect();
    let floors = if options.only.is_empty() { floors(options).await? } else { Vec::new() };
    let cluster = bench::spec(&options.subject.auth_node, SHARDS)?.start().await?;
    let node = cluster.node(1)?.pid.ok_or("node-1 does not run")?;
    let idle_mib = resident_mib(node);
    let mut figures = Figures::open(&cluster).await?;
    let mut rows = Vec::new();
    for call in &chosen {
        let row = figures.measure(*call, options).await?;
        report::progress(&row);
        rows.push(row);
    }
    let loaded_mib = resident_mib(node);
    if !options.no_syncs {
        figures.count_syncs(&chosen, &mut rows).await?;
    }
    let state = cluster.state()?;
    let facts = report::Facts {
        idle: figures.idle,
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
    options.subject.report(COMMAND, &text)?;
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
    let clients = clients("", CLIENTS)?;
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

impl Figures {
    async fn open(cluster: &Cluster) -> Outcome<Self> {
        let urls =
            (1..=SHARDS).map(|shard| cluster.shard_primary_dsn(shard)).collect::<Result<Vec<_>, _>>()?;
        tokio::time::sleep(SETTLE).await;
        let bench = Bench::open(cluster, CLIENTS)?;
        let idle = bench.idle(IDLE).await;
        Ok(Self { bench, wal: Wal::open(&urls).await?, idle })
    }

    /// The median round of a call.
    async fn measure(&mut self, call: Call, options: &Options) -> Outcome<Row> {
        let mut rounds: Vec<[f64; 5]> = Vec::new();
        for round in 0..=options.rounds {
            // The first round warms up.
            let most = if round == 0 { options.requests / 4 } else { options.requests };
            let requests = call.requests(most) / CLIENTS * CLIENTS;
            let mut items = self.bench.prepare(call, requests).await?;
            let wal = self.wal.bytes().await?;
            let taken = self.bench.take(call, requests, &mut whole(&mut items)).await?;
            let written = self.wal.bytes().await? - wal;
            let used = taken.beyond(self.idle);
            let [node, postgres, redis] = of_call(call, used);
            if round > 0 {
                let answers = taken.good as f64;
                let sums = [node, postgres, redis, written, of_replicas(used)];
                rounds.push(sums.map(|sum| sum / answers));
            }
        }
        let of = |at: usize| median(rounds.iter().map(|round| round[at]).collect());
        Ok(Row {
            name: call.name,
            cpu: [of(0), of(1), of(2)],
            replicas: of(4),
            wal_bytes: Some(of(3)),
            syncs: None,
            hashes: call.hashes,
        })
    }

    /// One client at a time, so that no two commits share a sync.
    async fn count_syncs(&mut self, calls: &[Call], rows: &mut [Row]) -> Outcome<()> {
        let mut prepared = Vec::new();
        for call in calls.iter().filter(|call| call.writes) {
            prepared.push((*call, call.prepare(&self.bench.clients[0], SYNC_REQUESTS).await?));
        }
        tokio::time::sleep(STATISTICS).await;
        let (client, node) = (&self.bench.clients[0], &self.bench.nodes[0]);
        let mut before = self.wal.syncs().await?;
        for (call, mut items) in prepared {
            let count = items.len();
            for number in 0..SYNC_REQUESTS {
                call.run(client, node, &mut items[number % count]).await?;
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
}
