//! `figures ownership`: what the ownership check of a write costs where commits are durable.
//!
//! The same statements on tables of one shape: bare, and with the policies and triggers of `meta.protect`, in rounds A B B A
//! over several connections, on a real primary with fsync and synchronous commit on, alone and with synchronous standbys. Checkpoints
//! and autovacuum are put off: both would fall on one round and not on the other, and page images after a checkpoint
//! would hide the check.
use std::time::{Duration, Instant};

use devcluster::{Cluster, ClusterSpec};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::Outcome;
use crate::bench::{group, is_primary};
use crate::meter::Group;
use crate::ownership_report;
use crate::report;
use crate::statements::{Guard, Item, ROWS, TABLES, Work, carry_out};

const PRIMARY: &str = "shard-1-primary";
const ACCOUNTS: usize = 8000;
const IDLE: Duration = Duration::from_secs(5);
const MOST_CONNECTIONS: usize = 64;

/// What to measure, and how often.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    subject: report::Subject,
    /// Blocks of rounds: bare, protected, and back again. Many that are short see what a disk does between them alike
    #[arg(long, default_value_t = 80)]
    blocks: usize,
    /// Transactions a round
    #[arg(long, default_value_t = 120)]
    transactions: usize,
    /// Numbers of connections, each with a transaction under way
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    connections: Vec<usize>,
    /// Numbers of replicas, each a cluster of its own: without, a commit waits for the disk alone and is the cheapest, so
    /// the check weighs most; from two on it waits for any one of them, as in production
    #[arg(long, value_delimiter = ',', default_values_t = [0, 2])]
    replicas: Vec<u16>,
    /// So many microseconds more before each flush of the log, as on a slower disk: PostgreSQL's `commit_delay`. Each a
    /// cluster of its own
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1000])]
    commit_delay_us: Vec<u32>,
}

/// One row of the table.
pub struct Series {
    pub work: Work,
    pub replicas: u16,
    pub commit_delay_us: u32,
    pub connections: usize,
    pub blocks: Vec<Block>,
}

/// What one round took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub seconds: f64,
    /// The server's CPU beyond its idle use.
    pub cpu_us: f64,
}

/// What a block's two rounds of each guard took, in the order of [`Guard::ALL`].
pub type Block = [Cost; 2];

/// Measures and reports.
pub async fn run(options: &Options) -> Outcome<()> {
    let most = options.connections.iter().copied().max().unwrap_or_default();
    if options.blocks < 2 || !(1..=MOST_CONNECTIONS).contains(&most) || options.connections.contains(&0) {
        return Err(format!("it takes two blocks, and 1 to {MOST_CONNECTIONS} connections").into());
    }
    let mut facts = ownership_report::Facts {
        server: String::new(),
        settings: String::new(),
        idle: Vec::new(),
        blocks: options.blocks,
        transactions: options.transactions,
    };
    let mut found = Vec::new();
    for (replicas, delay) in options
        .replicas
        .iter()
        .flat_map(|replicas| options.commit_delay_us.iter().map(move |us| (*replicas, *us)))
    {
        found.extend(one_cluster(options, (replicas, delay), most, &mut facts).await?);
    }
    let text = ownership_report::text(&facts, &found);
    options.subject.report(ownership_report::COMMAND, &text)
}

async fn one_cluster(
    options: &Options,
    (replicas, commit_delay_us): (u16, u32),
    most: usize,
    facts: &mut ownership_report::Facts,
) -> Outcome<Vec<Series>> {
    let spec = ClusterSpec::default().shards(1).replicas(replicas).nodes(1);
    let cluster = spec.auth_node(options.subject.auth_node.canonicalize()?).start().await?;
    // It has made the tables; from here on nobody else asks.
    cluster.kill("node-1").await?;
    facts.settings = set_up(&cluster, commit_delay_us).await?;
    facts.server = format!("PostgreSQL {}", cluster.state()?.servers.postgres_version);
    let mut clients = clients(&cluster, most).await?;
    let server = group(&cluster, is_primary)?;
    let before = server.cpu_us();
    tokio::time::sleep(IDLE).await;
    let idle = (server.cpu_us() - before) / IDLE.as_secs_f64();
    facts.idle.push(idle);
    let series = |connections: &usize| {
        let connections = *connections;
        Work::ALL.map(|work| Series { work, replicas, commit_delay_us, connections, blocks: Vec::new() })
    };
    let mut found: Vec<Series> = options.connections.iter().flat_map(series).collect();
    for block in 0..=options.blocks {
        for Series { work, connections, blocks, .. } in &mut found {
            let clients = &mut clients[..*connections];
            let last = one_block(clients, &server, idle, *work, (block, options.transactions)).await?;
            // The first block warms up.
            if block > 0 {
                blocks.push(last);
            }
        }
    }
    eprintln!(
        "{replicas} replicas, {commit_delay_us} µs before a flush: done, load average {}",
        report::load_average()
    );
    cluster.stop().await?;
    Ok(found)
}

/// Makes the tables; the settings that decide how durable a commit is, by the server's own word.
async fn set_up(cluster: &Cluster, commit_delay_us: u32) -> Outcome<String> {
    let mut owner = PgConnection::connect(&cluster.dsn(PRIMARY)?).await?;
    // However few transactions are under way.
    let delay = format!("commit_delay = {commit_delay_us}");
    let fixed =
        ["autovacuum = off", "checkpoint_timeout = '1h'", "max_wal_size = '8GB'", "commit_siblings = 0"];
    for setting in fixed.into_iter().chain([delay.as_str()]) {
        sqlx::raw_sql(AssertSqlSafe(format!("ALTER SYSTEM SET {setting}"))).execute(&mut owner).await?;
    }
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut owner).await?;
    let tables = TABLES.replace("$ROWS", &ACCOUNTS.to_string());
    sqlx::raw_sql(AssertSqlSafe(tables)).execute(&mut owner).await?;
    sqlx::raw_sql("CHECKPOINT").execute(&mut owner).await?;
    let mut told = Vec::new();
    for name in ["fsync", "synchronous_commit", "wal_sync_method"] {
        let sql = format!("SHOW {name}");
        let value: String = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut owner).await?;
        told.push(format!("{name} {value}"));
    }
    owner.close().await?;
    Ok(told.join(", "))
}

/// The nodes' role on connections of its own, each with its own sessions: none waits for another's row.
struct Client {
    conn: PgConnection,
    items: Vec<Item>,
    next: usize,
}

async fn clients(cluster: &Cluster, count: usize) -> Outcome<Vec<Client>> {
    let url = cluster.app_dsn(PRIMARY)?;
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client { conn: PgConnection::connect(&url).await?, items: Vec::new(), next: 0 });
    }
    let rows = sqlx::query(ROWS).fetch_all(&mut clients[0].conn).await?;
    for (number, row) in rows.iter().enumerate() {
        clients[number % count].items.push(Item::read(row)?);
    }
    Ok(clients)
}

async fn one_block(
    clients: &mut [Client],
    server: &Group,
    idle: f64,
    work: Work,
    (block, transactions): (usize, usize),
) -> Outcome<Block> {
    let mut done = Block::default();
    let mut order = Guard::ALL;
    if block % 2 == 1 {
        order.reverse();
    }
    for guard in order.into_iter().chain(order.into_iter().rev()) {
        let (before, started) = (server.cpu_us(), Instant::now());
        let share = transactions / clients.len();
        futures::future::try_join_all(clients.iter_mut().map(|client| client.work(work, guard, share)))
            .await?;
        let seconds = started.elapsed().as_secs_f64();
        let cost = &mut done[guard as usize];
        cost.seconds += seconds;
        cost.cpu_us += server.cpu_us() - before - idle * seconds;
    }
    Ok(done)
}

impl Client {
    async fn work(&mut self, work: Work, guard: Guard, count: usize) -> Outcome<()> {
        for _ in 0..count {
            let count = self.items.len();
            let item = &mut self.items[self.next % count];
            self.next += 1;
            carry_out(&mut self.conn, work, guard, item).await?;
        }
        Ok(())
    }
}
