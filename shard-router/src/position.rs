//! How far a shard's log had come at some moment: what a reader asks a replica for who must see its own writes.
//!
//! A position is read **after** the commit, or after the snapshot of a read, whose rows it stands for: taken before, it
//! may lie below the commit record (seen: 2 stale reads in 400). It is the position of insertion and not of flushing,
//! which would lie below a commit that nobody waited for. It means something on its own shard and timeline only.

use sqlx::postgres::PgConnection;
use std::str::FromStr;

/// A place in the log of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Counts promotions: the same place on another timeline is another place.
    pub timeline: u32,
    /// Bytes since the log began.
    pub lsn: u64,
}

/// Not a position as PostgreSQL writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position of a log")]
pub struct BadPosition;

/// The position of a primary as one column of text, for [`Position::from_str`]; NULL on a replica. What the statement has
/// read is not newer. In a statement that writes it would be too early: ask in another one, after the commit.
#[macro_export]
macro_rules! position {
    () => {
        "CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
              || ':' || pg_current_wal_insert_lsn() END"
    };
}

const NOW: &str = concat!("SELECT ", position!());

impl Position {
    /// Where the log of the primary at the other end stands: ask after the commit that it is to cover. `None` of a replica.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn now(conn: &mut PgConnection) -> Result<Option<Self>, sqlx::Error> {
        let text: Option<String> = sqlx::query_scalar(NOW).fetch_one(conn).await?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Whether somebody who has replayed up to here has everything up to `wanted`.
    #[must_use]
    pub fn covers(self, wanted: Self) -> bool {
        self.timeline == wanted.timeline && self.lsn >= wanted.lsn
    }

    /// Whether not much lies between, on the same timeline.
    pub(crate) fn is_within(self, bytes: u64, wanted: Self) -> bool {
        self.timeline == wanted.timeline && wanted.lsn.saturating_sub(self.lsn) <= bytes
    }

    /// What a replica says of itself; none while it has seen no heartbeat that tells its timeline.
    pub(crate) fn replayed(timeline: Option<i32>, lsn: Option<&str>) -> Option<Self> {
        Some(Self { timeline: u32::try_from(timeline?).ok()?, lsn: lsn_of(lsn?).ok()? })
    }
}

/// What [`position!`] gives: `00000001:16/B374D848`.
impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let (timeline, lsn) = text.split_once(':').ok_or(BadPosition)?;
        Ok(Self { timeline: hexadecimal(timeline)?, lsn: lsn_of(lsn)? })
    }
}

/// Of a position as PostgreSQL writes it: `16/B374D848`.
fn lsn_of(text: &str) -> Result<u64, BadPosition> {
    let (high, low) = text.split_once('/').ok_or(BadPosition)?;
    Ok(u64::from(hexadecimal(high)?) << 32 | u64::from(hexadecimal(low)?))
}

fn hexadecimal(digits: &str) -> Result<u32, BadPosition> {
    u32::from_str_radix(digits, 16).map_err(|_| BadPosition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_postgresql_writes_them() {
        let read = |text: &str| text.parse::<Position>();
        assert_eq!(read("00000001:16/B374D848"), Ok(Position { timeline: 1, lsn: 0x16_B374_D848 }));
        assert_eq!(read("0000001A:0/0"), Ok(Position { timeline: 26, lsn: 0 }));
        for bad in ["", ":", "1:", "1:0", "1:/", "1:0/1/2", "0/1", "1:100000000/0", "g:0/0"] {
            assert_eq!(read(bad), Err(BadPosition), "{bad}");
        }
    }

    #[test]
    fn a_position_covers_what_is_before_it_on_its_own_timeline() {
        let at = |timeline, lsn| Position { timeline, lsn };
        assert!(at(2, 5).covers(at(2, 5)) && at(2, 6).covers(at(2, 5)));
        assert!(!at(2, 4).covers(at(2, 5)));
        assert!(!at(3, 9).covers(at(2, 5)) && !at(1, 9).covers(at(2, 5)), "another timeline says nothing");
    }
}
