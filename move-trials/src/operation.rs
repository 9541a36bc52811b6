//! One operation of the load, carried to its end the way that a node does it: place, gate, redirect, wait.

use shard_router::shard_key::Bucket;
use shard_router::{Conn, Gated, MAX_FENCE_WAIT, Ownership, Router, gated, gated_read};
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, Connection};
use std::time::{Duration, Instant};

const INSERT: Gated = gated!(
    "INSERT INTO trial.op (bucket, seq) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING seq AS answer"
);
const COUNT: Gated = gated!(
    "UPDATE trial.counter c SET n = c.n + 1 WHERE c.bucket = $1 AND c.id = $2 RETURNING c.n AS answer"
);
const DELETE: Gated =
    gated!("DELETE FROM trial.op p WHERE p.bucket = $1 AND p.seq = $2 RETURNING p.seq AS answer");
const READ: Gated =
    gated_read!("SELECT c.n AS answer FROM trial.counter c WHERE c.bucket = $1 AND c.id = $2");

/// A node answers 503 after this; the load goes on asking, as a client would.
const PATIENCE: Duration = Duration::from_secs(45);
const RETRY: Duration = Duration::from_millis(20);

/// The answer of a shard that says that it owns a bucket, and does not have the row that is there.
pub(crate) const MISSING: i64 = -1;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Adds one operation and counts it, in one transaction.
    Add { seq: i64, id: i32 },
    /// Removes an operation that was acknowledged.
    Remove { seq: i64 },
    /// Reads a counter on the primary.
    Read { id: i32 },
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Acknowledged; of a read, what it said.
    pub answer: Option<i64>,
    /// It had to wait longer than a node would have: this was a 503.
    pub failed: bool,
    /// The connection was lost while it was under way, at least once.
    pub ambiguous: bool,
    pub redirects: u32,
    pub waits: u32,
}

/// What one attempt said.
enum Said {
    Done(i64),
    NotHere(Ownership),
    /// A row that must be there is not, though the shard says that it owns the bucket.
    Missing,
}

pub(crate) async fn carry_out(router: &Router, bucket: Bucket, kind: Kind) -> Outcome {
    let started = Instant::now();
    let mut outcome = Outcome::default();
    while started.elapsed() < PATIENCE {
        let shard = router.place(bucket).shard;
        let said = match router.primary(shard).await {
            Ok(conn) => attempt(conn, bucket, kind).await,
            Err(_) => {
                tokio::time::sleep(RETRY).await;
                outcome.failed = true;
                continue;
            }
        };
        match said {
            Ok(Said::Done(answer)) => {
                outcome.answer = Some(answer);
                outcome.failed |= outcome.waits > 0 && started.elapsed() > MAX_FENCE_WAIT;
                return outcome;
            }
            Ok(Said::Missing) => {
                outcome.answer = Some(MISSING);
                return outcome;
            }
            Ok(Said::NotHere(ownership)) => {
                if !router.redirected(bucket, ownership) {
                    outcome.waits += 1;
                    let _waiting = router.fence_wait(shard, bucket);
                    tokio::time::sleep(Duration::from_millis(1 + u64::from(outcome.waits.min(4)))).await;
                } else {
                    outcome.redirects += 1;
                }
            }
            Err(_) => {
                outcome.ambiguous = true;
                outcome.failed = true;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    outcome.failed = true;
    outcome
}

async fn attempt(mut conn: Conn, bucket: Bucket, kind: Kind) -> Result<Said, sqlx::Error> {
    let said = match kind {
        Kind::Add { seq, id } => add(&mut conn, bucket, seq, id).await,
        Kind::Remove { seq } => one(&mut conn, DELETE, bucket, seq).await.map(|said| match said {
            // Gone already: an attempt whose answer was lost has done it.
            Said::Missing => Said::Done(seq),
            said => said,
        }),
        Kind::Read { id } => one(&mut conn, READ, bucket, i64::from(id)).await,
    };
    if said.is_ok() {
        conn.release();
    }
    said
}

async fn add(conn: &mut Conn, bucket: Bucket, seq: i64, id: i32) -> Result<Said, sqlx::Error> {
    let mut tx = conn.begin().await?;
    let said = match one(&mut tx, INSERT, bucket, seq).await? {
        Said::Done(_) => one(&mut tx, COUNT, bucket, i64::from(id)).await?,
        // There already: an attempt whose answer was lost has committed.
        Said::Missing => {
            tx.rollback().await?;
            return Ok(Said::Done(0));
        }
        said => said,
    };
    if matches!(said, Said::Done(_)) {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(said)
}

async fn one(
    connection: &mut sqlx::PgConnection,
    statement: Gated,
    bucket: Bucket,
    key: i64,
) -> Result<Said, sqlx::Error> {
    use sqlx::Row;
    let mut args = PgArguments::default();
    args.add(i32::from(bucket)).map_err(sqlx::Error::Encode)?;
    args.add(key).map_err(sqlx::Error::Encode)?;
    let (ownership, rows) = match statement.run(connection, args).await {
        Ok(answer) => answer,
        Err(error) => return Ownership::from_error(&error).map(Said::NotHere).ok_or(error),
    };
    match ownership {
        Ownership::Active => {
            let found: Option<i64> = rows.first().map(|row| row.try_get("answer")).transpose()?.flatten();
            Ok(found.map_or(Said::Missing, Said::Done))
        }
        elsewhere => Ok(Said::NotHere(elsewhere)),
    }
}
