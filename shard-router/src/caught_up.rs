//! Whether a replica has come as far as a reader must see, and a short wait until it has.
//!
//! The order matters: the replica says how far it has come, and only then the reader's statement takes its snapshot. In
//! one statement the two would be the other way round.

use crate::directory::sql;
use crate::pool::Conn;
use crate::position::Position;
use crate::server::within;
use std::time::{Duration, Instant};

/// How long a reader waits for a replica before it asks the primary.
const PATIENCE: Duration = Duration::from_millis(20);
/// A replica that lacks more than this is not waited for.
const FAR_BYTES: u64 = 4 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// How it was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It had said so before, on the same connection.
    Known,
    /// It was there when it was asked.
    Asked,
    /// It came while the reader waited.
    Waited,
    /// It did not come in time, is on another timeline, or did not answer.
    Behind,
}

impl Found {
    const fn label(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Asked => "asked",
            Self::Waited => "waited",
            Self::Behind => "behind",
        }
    }
}

/// The connection, once the replica at its other end has everything up to `wanted`; `None` if it has not in time.
pub(crate) async fn caught_up(mut conn: Conn, wanted: Position) -> Option<Conn> {
    let known = conn.replayed().is_some_and(|replayed| replayed.covers(wanted));
    let found = if known { Ok(Found::Known) } else { ask(&mut conn, wanted).await };
    let label = found.as_ref().map_or(Found::Behind, |found| *found).label();
    metrics::counter!("tessera_read_positions_total", "outcome" => label).increment(1);
    match found {
        Ok(Found::Behind) => {
            conn.release();
            None
        }
        Ok(_) => Some(conn),
        // It may be in the middle of its answer: the connection is closed. Whether the server is well, a probe will say.
        Err(_) => None,
    }
}

async fn ask(conn: &mut Conn, wanted: Position) -> Result<Found, sqlx::Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let query = sqlx::query_as::<_, (Option<i32>, Option<String>)>(sql::REPLAYED).fetch_one(&mut **conn);
        let (timeline, lsn) = within(left, query).await?;
        let replayed = Position::replayed(timeline, lsn.as_deref());
        conn.note_replayed(replayed);
        match replayed {
            Some(replayed) if replayed.covers(wanted) => {
                return Ok(if pause == FIRST_PAUSE { Found::Asked } else { Found::Waited });
            }
            Some(replayed) if replayed.is_within(FAR_BYTES, wanted) && Instant::now() + pause < deadline => {}
            _ => return Ok(Found::Behind),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
