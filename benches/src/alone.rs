//! What PostgreSQL does by itself on as many servers, with no code of ours in between: one prepared statement over one
//! connection to each primary. What this grows by, a call on the same servers cannot go below.
use std::ops::Range;
use std::time::Instant;

use devcluster::Cluster;
use sqlx::{Connection, PgConnection};

use crate::Outcome;
use crate::bench::{Bench, Taken};
use crate::shards::Order;

/// All buckets, whose rows are on every server.
const BUCKETS: usize = 16384;

/// Of one row, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    Read,
    /// Commits itself, durably.
    Write,
}

impl Statement {
    /// For the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "*PostgreSQL alone: a row is read*",
            Self::Write => "*PostgreSQL alone: a row is written, and committed*",
        }
    }

    /// A row that the nodes' role may write: with a bound parameter, as every statement of a node.
    const fn sql(self) -> &'static str {
        match self {
            Self::Read => "SELECT state::text FROM meta.bucket_owner WHERE bucket = $1",
            Self::Write => {
                "UPDATE meta.heartbeat SET beat_at = clock_timestamp() WHERE id = 1 + $1 * 0 RETURNING id::text"
            }
        }
    }
}

/// A connection to each primary of a cluster.
pub struct Servers(Vec<PgConnection>);

impl Servers {
    /// As the nodes' role.
    pub async fn open(cluster: &Cluster, shards: u16) -> Outcome<Self> {
        let mut connections = Vec::new();
        for shard in 1..=shards {
            let url = cluster.app_dsn(&format!("shard-{shard}-primary"))?;
            connections.push(PgConnection::connect(&url).await?);
        }
        Ok(Self(connections))
    }

    /// One of so many stretches, of so many requests, the first half of which warms up: to all servers mixed, or all to
    /// one. However many servers there are, they share the same rows.
    pub async fn take(
        &mut self,
        bench: &Bench,
        statement: Statement,
        order: Order,
        (stretch, stretches, requests): (usize, usize, usize),
    ) -> Outcome<Taken> {
        let (count, first) = (self.0.len(), stretch * requests);
        let server = |number: usize| match order {
            Order::Mixed => number * 7 % count,
            Order::InTurn => stretch * count / stretches,
        };
        let half = first + requests / 2;
        self.ask(statement, first..half, server).await?;
        let (before, started) = (bench.used(), Instant::now());
        self.ask(statement, half..first + requests, server).await?;
        Ok(bench.since(before, started, requests - requests / 2))
    }

    async fn ask(
        &mut self,
        statement: Statement,
        numbers: Range<usize>,
        server: impl Fn(usize) -> usize,
    ) -> Outcome<()> {
        let share = BUCKETS / self.0.len();
        for number in numbers {
            let server = server(number);
            let bucket = i32::try_from(server * share + number * 7919 % share)?;
            let query = sqlx::query_scalar::<_, String>(statement.sql()).bind(bucket);
            query.fetch_one(&mut self.0[server]).await?;
        }
        Ok(())
    }
}
