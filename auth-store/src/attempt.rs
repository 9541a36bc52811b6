//! One attempt of a repository method on one connection: how far it got, and what becomes of the connection.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auth_core::ports::StoreError;
use shard_router::{Conn, ShardId};
use sqlx::{Connection, PgConnection};
use tracing::Instrument;

use crate::errors::{Fault, Kind, TxError};
use crate::spans;
use crate::tx::{Call, End, Work};

/// The server ends a statement after 1 s; these are for a server that does not answer at all.
const STATEMENT_LIMIT: Duration = Duration::from_millis(1500);
const TRANSACTION_LIMIT: Duration = Duration::from_millis(3000);

/// One attempt on one connection, and whether a commit was on its way when it failed.
pub(crate) async fn attempt<C, T, F>(
    (shard, mut conn): (ShardId, Conn),
    call: Call,
    ctx: &C,
    work: &F,
) -> (Result<T, TxError>, bool)
where
    C: Sync + ?Sized,
    T: Send,
    F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
{
    let reached = Reached::default();
    let limit = if call.kind == Kind::Transaction { TRANSACTION_LIMIT } else { STATEMENT_LIMIT };
    let span = spans::attempt(call, shard, conn.role());
    let outcome = tokio::time::timeout(limit, async {
        match call.kind {
            Kind::Transaction => transaction(&mut conn, ctx, work, &reached).await,
            Kind::Read | Kind::Write => statement(&mut conn, ctx, work).await,
        }
    });
    let outcome = outcome
        .instrument(span.clone())
        .await
        .unwrap_or_else(|_| Err(TxError::Store(StoreError::Unknown("the server did not answer".to_owned()))));
    if let Err(error) = &outcome {
        spans::failed(&span, error);
    }
    give_back(conn, &outcome, reached.open.load(Ordering::Relaxed));
    (outcome, reached.committing.load(Ordering::Relaxed))
}

/// How far an attempt got. Shared with a future that may be dropped at its limit.
#[derive(Default)]
struct Reached {
    /// A transaction was begun, and is not known to be over.
    open: AtomicBool,
    /// Its commit was on its way.
    committing: AtomicBool,
}

/// What becomes of the connection, and what the shard's breaker is told.
fn give_back<T>(conn: Conn, outcome: &Result<T, TxError>, is_open: bool) {
    match outcome.as_ref().map_err(TxError::fault) {
        Err((fault, why)) if fault.is_of_the_server() => conn.lost(&why),
        Err((Fault::Broken, _)) => drop(conn),
        _ if is_open => drop(conn),
        _ => conn.release(),
    }
}

async fn statement<C, T, F>(conn: &mut PgConnection, ctx: &C, work: &F) -> Result<T, TxError>
where
    C: Sync + ?Sized,
    F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
{
    let (End::Keep(value) | End::Undo(value)) = work(ctx, conn).await?;
    Ok(value)
}

async fn transaction<C, T, F>(
    conn: &mut PgConnection,
    ctx: &C,
    work: &F,
    reached: &Reached,
) -> Result<T, TxError>
where
    C: Sync + ?Sized,
    F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
{
    reached.open.store(true, Ordering::Relaxed);
    let mut tx = conn.begin().await?;
    let outcome = match work(ctx, &mut tx).await {
        Ok(End::Keep(value)) => {
            reached.committing.store(true, Ordering::Relaxed);
            tx.commit().await?;
            reached.open.store(false, Ordering::Relaxed);
            return Ok(value);
        }
        Ok(End::Undo(value)) => Ok(value),
        Err(error) if error.spares_connection() => Err(error),
        Err(error) => return Err(error),
    };
    // Nothing was to be written: the answer stands whether or not the rollback arrives.
    if tx.rollback().await.is_ok() {
        reached.open.store(false, Ordering::Relaxed);
    }
    outcome
}
