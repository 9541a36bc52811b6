//! One attempt on one connection: how far it got, and what becomes of the connection.
use std::sync::atomic::{AtomicBool, Ordering};

use shard_router::Conn;
use sqlx::{Connection, PgConnection};

use crate::errors::{Fault, TxError};
use crate::tx::{End, Work};

/// How far an attempt got. Shared with a future that may be dropped at its limit.
#[derive(Default)]
pub(crate) struct Reached {
    /// A transaction was begun, and is not known to be over.
    pub open: AtomicBool,
    /// Its commit was on its way.
    pub committing: AtomicBool,
}

/// What becomes of the connection, and what the shard's breaker is told.
pub(crate) fn give_back<T>(conn: Conn, outcome: &Result<T, TxError>, is_open: bool) {
    match outcome.as_ref().map_err(TxError::fault) {
        Err((fault, why)) if fault.is_of_the_server() => conn.lost(&why),
        Err((Fault::Broken, _)) => drop(conn),
        _ if is_open => drop(conn),
        _ => conn.release(),
    }
}

/// One statement that commits itself.
pub(crate) async fn statement<C, T, F>(conn: &mut PgConnection, ctx: &C, work: &F) -> Result<T, TxError>
where
    C: Sync + ?Sized,
    F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
{
    let (End::Keep(value) | End::Undo(value)) = work(ctx, conn).await?;
    Ok(value)
}

/// `BEGIN` … `COMMIT`, or a rollback where nothing was to be written.
pub(crate) async fn transaction<C, T, F>(
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
