//! `figures shards`: whether what a request costs depends on how many shards there are.
//!
//! One cluster for each number of shards, all running at once on this machine; stretches of the same calls in the order
//! A B B A, a second or less each, so that what the machine does meanwhile falls on all alike. The first half of each
//! stretch warms up: it takes hundreds of requests until what was not asked for a while is as fast as before. What
//! PostgreSQL and the node use while nobody asks grows with the shards: it is measured while another cluster is asked, so as
//! busy a machine as during the cluster's own stretches, taken off block by block, and reported beside.
//!
//! Sixteen servers on one machine take turns in its caches, which sixteen machines would not, and commits that come at the
//! same time share a sync on one server and not on sixteen. So each call comes in two orders: to users of all shards
//! mixed, and shard after shard (by bucket, in as many ranges as there are shards, one a stretch), where the server that
//! is asked is as busy as the only one of the other cluster. Nodes keep to one core and servers to another: see
//! [`pin`](crate::meter::pin). PostgreSQL is measured [alone](crate::alone) beside it, on the same servers in the same
//! orders: what that grows by is not ours.
use std::time::Instant;

use benches::stats::median;
use devcluster::Cluster;

use crate::Outcome;
use crate::alone::{Servers, Statement};
use crate::bench::{self, Bench, SETTLE, Taken, Used, of_backends, of_call};
use crate::calls::{CALLS, Call, Item, Needs};
use crate::report;
use crate::shards_report;

/// Users of each shard whose sessions the calls of a block share.
const USERS: usize = 4;
const SESSION_CHECK: &str = "GET /auth/verify, a token seen before";
/// What every client asks.
const NAMES: [&str; 4] = ["POST /auth/v1/refresh", SESSION_CHECK, "GET /auth/v1/me", "POST /auth/v1/login"];
/// So many more requests of what costs least, so that a stretch is long beside the look at the kernel's accounts.
const MORE: usize = 4;
/// Replicas stream what their primary writes: a cost of the replica, and no question of how many shards there are.
const REPLICAS: u16 = 0;

/// What to measure, and how often.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    subject: report::Subject,
    /// Numbers of shards; all are compared with the first
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    shards: Vec<u16>,
    /// Blocks, in each of which every cluster is asked all calls in both orders, stretch by stretch
    #[arg(long, default_value_t = 10)]
    blocks: usize,
    /// Connections to each node. With one no two requests meet: each server has one connection, warm, and no two commits
    /// share a sync. With more, sixteen pools fill slowly, and every new connection costs what thirty requests do
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests of a call in a block, a tenth of logins and four times as many session checks and bare reads, in as many
    /// stretches as the most shards; half of them warm up
    #[arg(long, default_value_t = 9600)]
    requests: usize,
}

/// One number of shards.
pub struct Arm {
    pub shards: u16,
    bench: Bench,
    cluster: Cluster,
    alone: Servers,
    /// What it took in each block while other clusters were asked; the first block only warms up.
    pub rest: Vec<Taken>,
}

/// In which order requests come to the users of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Mixed,
    InTurn,
}

/// Items by client.
type Dealt = Vec<Vec<Item>>;

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

    fn requests(self, most: usize) -> usize {
        match self {
            Self::Call(call) if call.name == SESSION_CHECK => most * MORE,
            Self::Call(call) => call.requests(most),
            Self::Alone(Statement::Read) => most * MORE,
            Self::Alone(Statement::Write) => most,
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

struct Stretch {
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
    let most = options.shards.iter().copied().max().unwrap_or_default();
    if options.shards.iter().any(|shards| *shards == 0 || most % shards != 0) {
        return Err("each number of shards must divide the most, so that a stretch is of one shard".into());
    }
    let mut works = vec![Work::Alone(Statement::Read), Work::Alone(Statement::Write)];
    for name in NAMES {
        let call = CALLS.into_iter().find(|call| call.name == name);
        works.push(Work::Call(call.ok_or_else(|| format!("no call is named {name}"))?));
    }
    let mut arms = start(options).await?;
    let mut stretches = Vec::new();
    for block in 0..=options.blocks {
        let last = one_block(&mut arms, &works, block, options.requests).await?;
        // The first block warms up: every connection of every shard parses and plans its statements.
        if block > 0 {
            stretches.extend(last);
        }
        eprintln!("block {block} of {}, load average {}", options.blocks, report::load_average());
    }
    let costs = costs(&arms, &works, &stretches, options.blocks);
    let servers = arms[0].cluster.state()?.servers;
    let facts = shards_report::Facts {
        servers: format!("PostgreSQL {}, Redis {}", servers.postgres_version, servers.redis_version),
        replicas: REPLICAS,
        blocks: options.blocks,
        requests: options.requests,
        clients: options.connections,
        stretches_s: median(stretches.iter().map(|stretch| stretch.taken.spent.as_secs_f64()).collect()),
    };
    let text = shards_report::text(&facts, &arms, &costs);
    options.subject.report(shards_report::COMMAND, &text)?;
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
        let spec = bench::spec(&options.subject.auth_node, *shards)?.replicas(REPLICAS);
        clusters.push((*shards, spec.start().await?));
        eprintln!("{shards} shards are up after {} s", started.elapsed().as_secs());
    }
    tokio::time::sleep(SETTLE).await;
    let mut arms = Vec::new();
    for (shards, cluster) in clusters {
        let bench = Bench::open(&cluster, options.connections)?;
        bench.pin()?;
        let alone = Servers::open(&cluster, shards).await?;
        arms.push(Arm { shards, bench, cluster, alone, rest: Vec::new() });
    }
    Ok(arms)
}

async fn one_block(arms: &mut [Arm], works: &[Work], block: usize, most: usize) -> Outcome<Vec<Stretch>> {
    let parts = arms.iter().map(|arm| usize::from(arm.shards)).max().unwrap_or(1);
    let mut sessions = shared(arms, most, parts).await?;
    arms.iter_mut().for_each(|arm| arm.rest.push(Taken::default()));
    let mut stretches = Vec::new();
    for (number, work) in works.iter().enumerate() {
        for order in ORDERS {
            let each = work.requests(most) / parts;
            let mut items = items(arms, *work, order, each * parts, &mut sessions).await?;
            for part in 0..parts {
                for turn in 0..arms.len() {
                    let arm = if (block + part).is_multiple_of(2) { turn } else { arms.len() - 1 - turn };
                    let size = (part, parts, each);
                    let before: Vec<_> = arms.iter().map(|arm| (arm.bench.used(), Instant::now())).collect();
                    let taken = one_stretch(&mut arms[arm], *work, order, size, &mut items[arm]).await?;
                    for (other, (used, started)) in
                        before.into_iter().enumerate().filter(|(at, _)| *at != arm)
                    {
                        let taken = arms[other].bench.since(used, started, 0);
                        arms[other].rest[block].add(taken);
                    }
                    stretches.push(Stretch { work: number, order, arm, block, taken });
                }
            }
            if matches!(work, Work::Call(call) if call.needs == Needs::Shared) {
                sessions = items;
            }
        }
    }
    Ok(stretches)
}

/// What a block's requests of this kind need, by arm and client, sorted for that order.
async fn items(
    arms: &[Arm],
    work: Work,
    order: Order,
    requests: usize,
    shared: &mut Vec<Dealt>,
) -> Outcome<Vec<Dealt>> {
    let Work::Call(call) = work else { return Ok(vec![Vec::new(); arms.len()]) };
    let mut items = Vec::new();
    if call.needs == Needs::Shared {
        items = std::mem::take(shared);
    } else {
        for arm in arms {
            items.push(arm.bench.prepare(call, requests).await?);
        }
    }
    let sorted = arms.iter().zip(items).map(|(arm, items)| arm.bench.by_bucket(items, order == Order::Mixed));
    Ok(sorted.collect())
}

async fn one_stretch(
    arm: &mut Arm,
    work: Work,
    order: Order,
    (part, parts, requests): (usize, usize, usize),
    items: &mut [Vec<Item>],
) -> Outcome<Taken> {
    let Arm { bench, alone, .. } = arm;
    let call = match work {
        Work::Alone(statement) => return alone.take(bench, statement, order, (part, parts, requests)).await,
        Work::Call(call) => call,
    };
    let mine = |items: &Vec<Item>| {
        let (count, first_of) = (items.len(), |to| items.partition_point(|item| item.part(parts) < to));
        match order {
            Order::InTurn => first_of(part)..first_of(part + 1),
            Order::Mixed if call.needs == Needs::Shared => 0..count,
            Order::Mixed => part * count / parts..(part + 1) * count / parts,
        }
    };
    let mut mine: Vec<&mut [Item]> = items
        .iter_mut()
        .map(|items| {
            let range = mine(items);
            &mut items[range]
        })
        .collect();
    let taken = bench.take_warm(call, requests, &mut mine).await?;
    if taken.good == 0 {
        Err("too few requests for so many stretches and connections".into())
    } else {
        Ok(taken)
    }
}

/// The sessions that all calls of a block share, by arm, as many in each part of the buckets: made anew for each block,
/// because access tokens live 5 minutes.
async fn shared(arms: &[Arm], most: usize, parts: usize) -> Outcome<Vec<Dealt>> {
    let call = CALLS.iter().find(|call| call.needs == Needs::Shared).ok_or("no call has sessions")?;
    let mut sessions = Vec::new();
    for arm in arms {
        let wanted = USERS * arm.bench.clients.len();
        let mut of_part = vec![Vec::new(); parts];
        while of_part.iter().any(|users| users.len() < wanted) {
            for user in arm.bench.prepare(*call, most).await?.into_iter().flatten() {
                of_part[user.part(parts)].push(user);
            }
        }
        of_part.iter_mut().for_each(|users| users.truncate(wanted));
        sessions.push(of_part);
    }
    Ok(sessions)
}

fn costs(arms: &[Arm], works: &[Work], stretches: &[Stretch], blocks: usize) -> Vec<Cost> {
    let of_block = |work: usize, order: Order, arm: usize, block: usize| {
        let mut sum = Taken::default();
        let wanted = |s: &&Stretch| (s.work, s.order, s.arm, s.block) == (work, order, arm, block);
        stretches.iter().filter(wanted).for_each(|stretch| sum.add(stretch.taken));
        let used = sum.beyond(arms[arm].rest[block].a_second());
        works[work].of(used).map(|used| used / sum.good as f64)
    };
    let cost = |work: usize, order: Order| {
        let of_arm = |arm| (1..=blocks).map(|block| of_block(work, order, arm, block)).collect();
        Cost { work: works[work], order, arms: (0..arms.len()).map(of_arm).collect() }
    };
    (0..works.len()).flat_map(|work| ORDERS.map(|order| cost(work, order))).collect()
}
