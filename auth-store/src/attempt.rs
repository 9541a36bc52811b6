//! One attempt of a repository method on one connection: how far it got, and what becomes of the connection.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auth_core::ports::{StoreError, trail};
use shard_router::{Conn, Position, ShardId};
use sqlx::{Connection, PgConnection};
use tracing::Instrument;

use crate::errors::{Fault, Kind, TxError};
use crate::spans;
use crate::tx::{Call, End, Work};

/// The server ends a statement after 1 s; these are for a server that does not answer at all.
const STATEMENT_LIMIT: Duration = Duration::from_millis(1500);
/// One that found nothing is done again beside its gate.
const WRITE_LIMIT: Duration = Duration::from_millis(2500);
const TRANSACTION_LIMIT: Duration = Duration::from_millis(3000);

const POSITION_LIMIT: Duration = Duration::from_millis(250);

/// What a finished attempt found, and a position in the shard's log that covers it: of a transaction, if somebody wants to
/// know, and of a read that looked.
pub(crate) type Found<T> = (T, Option<Position>);

/// One attempt on one connection, and whether a commit was on its way when it failed.
pub(crate) async fn attempt<C, T, F>(
    (shard, mut conn): (ShardId, Conn),
    call: Call,
    ctx: &C,
    work: &F,
) -> (Result<Found<T>, TxError>, bool)
where
    C: Sync + ?Sized,
    T: Send,
    F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
{
    let reached = Reached::default();
    let limit = match call.kind {
        Kind::Read => STATEMENT_LIMIT,
        Kind::Write => WRITE_LIMIT,
        Kind::Transaction => TRANSACTION_LIMIT,
    };
    let span = spans::attempt(call, shard, conn.role());
    let outcome = tokio::time::timeout(limit, async {
        match call.kind {
            Kind::Transaction => transaction(&mut conn, ctx, work, &reached).await,
            Kind::Read | Kind::Write => statement(&mut conn, ctx, work).await,
        }
    });
    let mut outcome = outcome
        .instrument(span.clone())
        .await
        .unwrap_or_else(|_| Err(TxError::Store(StoreError::Unknown("the server did not answer".to_owned()))));
    if let Err(error) = &outcome {
        spans::failed(&span, error);
    }
    let mut is_open = reached.open.load(Ordering::Relaxed);
    if let Ok((_, found)) = &mut outcome
        && call.kind == Kind::Transaction
        && !is_open
        && trail::is_followed()
    {
        // The transaction has ended, and stands, whatever becomes of this question. One without an answer may still be on
        // its way: such a connection is closed.
        let asked = position(&mut conn).await;
        is_open = asked.is_none();
        *found = asked.flatten();
    }
    give_back(conn, &outcome, is_open);
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

async fn statement<C, T, F>(conn: &mut PgConnection, ctx: &C, work: &F) -> Result<Found<T>, TxError>
where
    C: Sync + ?Sized,
    F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
{
    match work(ctx, conn).await? {
        End::Keep(value) | End::Undo(value) => Ok((value, None)),
        End::Seen(value, position) => Ok((value, position)),
    }
}

async fn transaction<C, T, F>(
    conn: &mut PgConnection,
    ctx: &C,
    work: &F,
    reached: &Reached,
) -> Result<Found<T>, TxError>
where
    C: Sync + ?Sized,
    F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
{
    reached.open.store(true, Ordering::Relaxed);
    let mut tx = conn.begin().await?;
    let outcome = match work(ctx, &mut tx).await {
        Ok(End::Keep(value) | End::Seen(value, _)) => {
            reached.committing.store(true, Ordering::Relaxed);
            tx.commit().await?;
            reached.open.store(false, Ordering::Relaxed);
            return Ok((value, None));
        }
        Ok(End::Undo(value)) => Ok((value, None)),
        Err(error) if error.spares_connection() => Err(error),
        Err(error) => return Err(error),
    };
    // Nothing was to be written: the answer stands whether or not the rollback arrives.
    if tx.rollback().await.is_ok() {
        reached.open.store(false, Ordering::Relaxed);
    }
    outcome
}

/// Where the primary is now; the outer `None`: no answer.
async fn position(conn: &mut PgConnection) -> Option<Option<Position>> {
    tokio::time::timeout(POSITION_LIMIT, Position::now(conn)).await.ok()?.ok()
}
