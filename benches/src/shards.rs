//! `figures shards`: whether what a request costs depends on how many shards there are.
//!
//! One cluster for each number of shards, all running at once on this machine; rounds of the same calls in the order
//! A B B A, so that what the machine does meanwhile falls on all alike. What PostgreSQL and the node use while nobody
//! asks grows with the shards: it is measured before and after, taken off, and reported beside.
//!
//! Sixteen servers on one machine take turns in its caches, which sixteen machines would not, and commits that come at the
//! same time share a sync on one server and not on sixteen. So each call comes in two orders: to users of all shards
//! mixed, and shard after shard (by bucket, in as many parts as there are shards, each warmed up), where the server that
//! is asked is as busy as the only one of the other cluster. It takes hundreds of requests until it is as warm. Nodes keep to
//! one core and servers to another: see [`pin`](crate::meter::pin). PostgreSQL is measured [alone](crate::alone) beside it, on
//! the same servers in the same orders: what that grows by is not ours.
use std::path::PathBuf;
use std::time::{Duration, Instant};

use benches::stats::median;
use devcluster::Cluster;

use crate::Outcome;
use crate::alone::{Servers, Statement};
use crate::bench::{self, Bench, SETTLE, Taken, Used, of_backends, of_call, whole};
use crate::calls::{CALLS, Call, Item, Needs};
use crate::report;
use crate::shards_report;

const IDLE: Duration = Duration::from_secs(20);
/// Users whose sessions the calls of a block share: some on every shard.
const USERS: usize = 64;
/// What every client asks.
const NAMES: [&str; 4] = [
    "POST /auth/v1/refresh",
    "GET /auth/verify, a token seen before",
    "GET /auth/v1/me",
    "POST /auth/v1/login",
];
/// So much longer is a round in turn: half of each stretch warms up.
const LONGER: usize = 3;
/// Replicas stream what their primary writes: a cost of the replica, and no question of how many shards there are.
const REPLICAS: u16 = 0;

/// What to measure, and how often.
#[derive(clap::Args)]
pub struct Options {
    /// The release executable
    #[arg(long)]
    auth_node: PathBuf,
    /// The document whose section is written anew; without it the section is printed only
    #[arg(long)]
    write: Option<PathBuf>,
    /// Numbers of shards; all are compared with the first
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    shards: Vec<u16>,
    /// Blocks of rounds: each asks every cluster twice, A B B A
    #[arg(long, default_value_t = 5)]
    blocks: usize,
    /// Connections to each node. With one no two requests meet: each server has one connection, warm, and no two commits
    /// share a sync. With more, sixteen pools fill slowly, and every new connection costs what thirty requests do
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests a round, a tenth of logins; in turn three times as many, half of them to warm up
    #[arg(long, default_value_t = 3200)]
    requests: usize,
}

/// One number of shards.
pub struct Arm {
    pub shards: u16,
    bench: Bench,
    cluster: Cluster,
    alone: Servers,
    /// A second's use while nobody asks, before and after the rounds.
    pub idle: [Used; 2],
}

/// In which order requests come to the users of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Mixed,
    InTurn,
}

/// What is measured.
#[derive(Clone, Copy)]
pub enum Work {
    Call(Call),
    Alone(Statement),
}

impl Work {
    /// For the table.
    pub fn name(self) -> String {
        match self {
            Self::Call(call) if call.hashes => format!("{}, beside the hash", report::ticked(call.name)),
            Self::Call(call) => report::ticked(call.name),
            Self::Alone(statement) => statement.name().to_owned(),
        }
    }

    fn requests(self, most: usize, order: Order) -> usize {
        let most = if order == Order::InTurn { most * LONGER } else { most };
        match self {
            Self::Call(call) => call.requests(most),
            Self::Alone(_) => most,
        }
    }

    /// Of what all processes used.
    fn of(self, used: Used) -> [f64; 4] {
        let [node, postgres, redis] = match self {
            Self::Call(call) => of_call(call, used),
            Self::Alone(_) => [0.0, used[1], 0.0],
        };
        [node, postgres, redis, of_backends(used)]
    }
}

struct Round {
    work: usize,
    order: Order,
    arm: usize,
    block: usize,
    taken: Taken,
}

/// µs an answer of node, PostgreSQL, Redis, and of PostgreSQL the backends that serve nodes; by block.
pub type Blocks = Vec<[f64; 4]>;

/// One work in one order: a row for each arm.
pub struct Cost {
    pub work: Work,
    pub order: Order,
    pub arms: Vec<Blocks>,
}

const ORDERS: [Order; 2] = [Order::Mixed, Order::InTurn];

/// Measures and reports.
pub async fn run(options: &Options) -> Outcome<()> {
    if options.shards.len() < 2 || options.blocks < 2 || options.connections < 1 {
        return Err("it takes two numbers of shards, two blocks and a connection".into());
    }
    let calls = NAMES.iter().filter_map(|name| CALLS.into_iter().find(|call| call.name == *name));
    let alone = [Statement::Read, Statement::Write].map(Work::Alone);
    let works: Vec<Work> = alone.into_iter().chain(calls.map(Work::Call)).collect();
    let mut arms = start(options).await?;
    measure_idle(&mut arms, 0).await;
    let mut rounds = Vec::new();
    for block in 0..=options.blocks {
        let last = one_block(&mut arms, &works, block, options.requests).await?;
        // The first block warms up: every connection of every shard parses and plans its statements.
        if block > 0 {
            rounds.extend(last);
        }
        eprintln!("block {block} of {}, load average {}", options.blocks, report::load_average());
    }
    tokio::time::sleep(SETTLE).await;
    measure_idle(&mut arms, 1).await;
    let costs = costs(&arms, &works, &rounds, options.blocks);
    let servers = arms[0].cluster.state()?.servers;
    let facts = shards_report::Facts {
        servers: format!("PostgreSQL {}, Redis {}", servers.postgres_version, servers.redis_version),
        replicas: REPLICAS,
        blocks: options.blocks,
        requests: options.requests,
        clients: options.connections,
        rounds_s: median(rounds.iter().map(|round| round.taken.spent.as_secs_f64()).collect()),
    };
    let text = shards_report::text(&facts, &arms, &costs);
    println!("{text}");
    if let Some(path) = &options.write {
        report::write(path, shards_report::COMMAND, &text)?;
    }
    for arm in arms {
        arm.cluster.stop().await?;
    }
    Ok(())
}

/// One after the other: two cores, and up to sixteen servers that are made.
async fn start(options: &Options) -> Outcome<Vec<Arm>> {
    let mut clusters = Vec::new();
    for shards in &options.shards {
        let started = Instant::now();
        let spec = bench::spec(&options.auth_node, *shards)?.replicas(REPLICAS);
        clusters.push((*shards, spec.start().await?));
        eprintln!("{shards} shards are up after {} s", started.elapsed().as_secs());
    }
    tokio::time::sleep(SETTLE).await;
    let mut arms = Vec::new();
    for (shards, cluster) in clusters {
        let bench = Bench::open(&cluster, options.connections)?;
        bench.pin()?;
        let alone = Servers::open(&cluster, shards).await?;
        arms.push(Arm { shards, bench, cluster, alone, idle: [Used::default(); 2] });
    }
    Ok(arms)
}

async fn measure_idle(arms: &mut [Arm], when: usize) {
    let benches: Vec<&Bench> = arms.iter().map(|arm| &arm.bench).collect();
    let idle = bench::idle(&benches, IDLE).await;
    for (arm, idle) in arms.iter_mut().zip(idle) {
        arm.idle[when] = idle;
    }
}

async fn one_block(arms: &mut [Arm], works: &[Work], block: usize, most: usize) -> Outcome<Vec<Round>> {
    let mut sessions = shared(arms, most).await?;
    let mut order: Vec<usize> = (0..arms.len()).collect();
    if block % 2 == 1 {
        order.reverse();
    }
    order.extend(order.clone().into_iter().rev());
    let parts = arms.iter().map(|arm| usize::from(arm.shards)).max().unwrap_or(1);
    let mut rounds = Vec::new();
    for (number, work) in works.iter().enumerate() {
        for (kind, arm) in ORDERS.into_iter().flat_map(|kind| order.iter().map(move |arm| (kind, *arm))) {
            let size = (work.requests(most, kind), parts);
            let taken = match work {
                Work::Alone(statement) => {
                    let Arm { bench, alone, .. } = &mut arms[arm];
                    alone.take(bench, *statement, kind, size).await?
                }
                Work::Call(call) => one_call(&arms[arm].bench, *call, kind, size, &mut sessions[arm]).await?,
            };
            rounds.push(Round { work: number, order: kind, arm, block, taken });
        }
    }
    Ok(rounds)
}

async fn one_call(
    bench: &Bench,
    call: Call,
    order: Order,
    (requests, parts): (usize, usize),
    shared: &mut Vec<Vec<Item>>,
) -> Outcome<Taken> {
    let items = match call.needs {
        Needs::Shared => std::mem::take(shared),
        _ => bench.prepare(call, requests).await?,
    };
    let mut items = bench.by_bucket(items, order == Order::Mixed);
    let taken = match order {
        Order::Mixed => bench.take(call, requests, &mut whole(&mut items)).await?,
        Order::InTurn => bench.take_parts(call, requests, &mut items, parts).await?,
    };
    if call.needs == Needs::Shared {
        *shared = items;
    }
    Ok(taken)
}

/// The sessions that all calls of a block share, by arm: made anew for each, because access tokens live 5 minutes.
async fn shared(arms: &[Arm], most: usize) -> Outcome<Vec<Vec<Vec<Item>>>> {
    let call = CALLS.iter().find(|call| call.needs == Needs::Shared).ok_or("no call has sessions")?;
    let mut sessions = Vec::new();
    for arm in arms {
        let mut users = Vec::new();
        while users.iter().map(Vec::len).sum::<usize>() < USERS {
            users.extend(arm.bench.prepare(*call, most).await?);
        }
        sessions.push(users);
    }
    Ok(sessions)
}

fn costs(arms: &[Arm], works: &[Work], rounds: &[Round], blocks: usize) -> Vec<Cost> {
    let of_block = |work: usize, order: Order, arm: usize, block: usize| {
        let idle = &arms[arm].idle;
        let idle: Used = std::array::from_fn(|at| f64::midpoint(idle[0][at], idle[1][at]));
        let mut sum = Taken::default();
        let wanted = |r: &&Round| (r.work, r.order, r.arm, r.block) == (work, order, arm, block);
        rounds.iter().filter(wanted).for_each(|round| sum.add(round.taken));
        let used = sum.beyond(idle);
        works[work].of(used).map(|used| used / sum.good as f64)
    };
    let cost = |work: usize, order: Order| {
        let of_arm = |arm| (1..=blocks).map(|block| of_block(work, order, arm, block)).collect();
        Cost { work: works[work], order, arms: (0..arms.len()).map(of_arm).collect() }
    };
    (0..works.len()).flat_map(|work| ORDERS.map(|order| cost(work, order))).collect()
}
