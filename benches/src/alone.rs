//! What PostgreSQL does by itself on as many servers, with no node in between: one prepared statement over one
//! connection to each primary. What this grows by, a call on the same servers cannot go below.
use std::ops::Range;
use std::time::Instant;

use devcluster::Cluster;
use shard_key::Bucket;
use sqlx::{Connection, PgConnection};

use crate::Outcome;
use crate::bench::{Bench, Taken};
use crate::shards::Order;

/// Of one row, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    Read,
    /// Commits itself, durably. It is the nodes' heartbeat, the one row that their role may write without a user, and runs its
    /// small trigger.
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

    /// One of so many stretches, of so many requests, the first half of which warms up: for buckets of all servers mixed, or
    /// of one range. However many servers there are, the buckets are the same, and each is asked for where it lives.
    pub async fn take(
        &mut self,
        bench: &Bench,
        statement: Statement,
        order: Order,
        (part, parts, requests): (usize, usize, usize),
    ) -> Outcome<Taken> {
        let (range, first) = match order {
            Order::Mixed => (0..Bucket::COUNT, part * requests),
            Order::InTurn => (part * Bucket::COUNT / parts..(part + 1) * Bucket::COUNT / parts, 0),
        };
        let half = first + requests / 2;
        self.ask(statement, first..half, &range).await?;
        let (before, started) = (bench.used(), Instant::now());
        self.ask(statement, half..first + requests, &range).await?;
        Ok(bench.since(before, started, requests - requests / 2))
    }

    async fn ask(
        &mut self,
        statement: Statement,
        numbers: Range<usize>,
        buckets: &Range<usize>,
    ) -> Outcome<()> {
        const SCATTER: usize = 7919;
        for number in numbers {
            let bucket = buckets.start + number * SCATTER % buckets.len();
            let server = bucket * self.0.len() / Bucket::COUNT;
            let query = sqlx::query_scalar::<_, String>(statement.sql()).bind(i32::try_from(bucket)?);
            query.fetch_one(&mut self.0[server]).await?;
        }
        Ok(())
    }
}
