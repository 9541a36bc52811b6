//! What a shard says about a bucket, read from a gated statement's row or from the error of a row that was refused.

use crate::map::{Hint, ShardId};
use serde::Deserialize;
use sqlx::Row;
use sqlx::postgres::{PgDatabaseError, PgRow};

/// SQLSTATE of "not mine; the detail says whose".
pub const SQLSTATE_ELSEWHERE: &str = "SH301";
/// SQLSTATE of "a move decides in a moment; come back".
pub const SQLSTATE_FENCED: &str = "SH503";
/// SQLSTATE of "the bucket of a row never changes": a bug in the caller.
pub const SQLSTATE_BUCKET_CHANGED: &str = "SH400";

/// The states of `meta.bucket_owner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// This shard owns the bucket.
    Active,
    /// A move is about to decide; neither reads nor writes are safe for a moment.
    Fenced,
    /// Not (yet) this shard's: a copy may be arriving.
    Incoming,
    /// Given away.
    Moved,
}

impl OwnerState {
    /// Reads the stored `"char"`.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<Self> {
        match code as u8 {
            b'A' => Some(Self::Active),
            b'F' => Some(Self::Fenced),
            b'I' => Some(Self::Incoming),
            b'M' => Some(Self::Moved),
            _ => None,
        }
    }

    /// The stored letter.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Active => 'A',
            Self::Fenced => 'F',
            Self::Incoming => 'I',
            Self::Moved => 'M',
        }
    }
}

/// What a caller must do about a bucket after one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The shard owns it. Only now is "no row" a verdict.
    Active,
    /// Give the connection back, wait a moment behind the bulkhead, try again.
    Fenced,
    /// Ask the shard of the hint; without one, refresh the map and ask again.
    Elsewhere(Option<Hint>),
}

impl Ownership {
    /// From the three columns of a gated statement; all `None` if there was no row at all.
    #[must_use]
    pub fn from_gate(state: Option<i8>, moved_to: Option<i16>, epoch: Option<i64>) -> Self {
        match state.and_then(OwnerState::from_code) {
            Some(OwnerState::Active) => Self::Active,
            Some(OwnerState::Fenced) => Self::Fenced,
            Some(OwnerState::Moved) => Self::Elsewhere(hint(moved_to, epoch)),
            Some(OwnerState::Incoming) | None => Self::Elsewhere(None),
        }
    }

    /// From the first row of a gated statement, or from there being none (the bucket is unknown here).
    ///
    /// # Errors
    /// The row lacks the columns `owner_state`, `owner_moved_to`, `owner_epoch`: it was not a gated statement.
    pub fn from_row(row: Option<&PgRow>) -> Result<Self, sqlx::Error> {
        let Some(row) = row else { return Ok(Self::Elsewhere(None)) };
        Ok(Self::from_gate(
            row.try_get("owner_state")?,
            row.try_get("owner_moved_to")?,
            row.try_get("owner_epoch")?,
        ))
    }

    /// From the error that refuses a row, by policy or trigger; `None` if the error is about something else.
    #[must_use]
    pub fn from_error(error: &sqlx::Error) -> Option<Self> {
        let database = error.as_database_error()?;
        match database.code()?.as_ref() {
            SQLSTATE_FENCED => Some(Self::Fenced),
            SQLSTATE_ELSEWHERE => {
                let detail = database.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::detail);
                Some(Self::Elsewhere(detail.and_then(hint_from_detail)))
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Detail {
    moved_to: Option<i16>,
    epoch: Option<i64>,
}

/// A detail that cannot be read is no hint: the map's refresh finds the owner.
fn hint_from_detail(detail: &str) -> Option<Hint> {
    let Detail { moved_to, epoch } = serde_json::from_str(detail).ok()?;
    hint(moved_to, epoch)
}

fn hint(moved_to: Option<i16>, epoch: Option<i64>) -> Option<Hint> {
    Some(Hint { to: ShardId::new(moved_to?)?, epoch: epoch? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letter(state: char) -> Option<i8> {
        Some(state as u8 as i8)
    }

    #[test]
    fn every_state_has_one_meaning() {
        let to_2 = Hint { to: ShardId::new(2).unwrap(), epoch: 7 };
        let gate = |state| Ownership::from_gate(state, Some(2), Some(7));
        assert_eq!(gate(letter('A')), Ownership::Active);
        assert_eq!(gate(letter('F')), Ownership::Fenced);
        assert_eq!(gate(letter('I')), Ownership::Elsewhere(None));
        assert_eq!(gate(letter('M')), Ownership::Elsewhere(Some(to_2)));
        assert_eq!(gate(None), Ownership::Elsewhere(None));
        assert_eq!(gate(letter('x')), Ownership::Elsewhere(None));
        assert_eq!(Ownership::from_gate(letter('M'), None, Some(7)), Ownership::Elsewhere(None));
        assert_eq!(Ownership::from_gate(letter('M'), Some(0), Some(7)), Ownership::Elsewhere(None));
    }

    #[test]
    fn a_detail_names_the_new_owner() {
        let to_2 = Hint { to: ShardId::new(2).unwrap(), epoch: 7 };
        assert_eq!(hint_from_detail(r#"{"moved_to" : 2, "epoch" : 7}"#), Some(to_2));
        assert_eq!(hint_from_detail(r#"{"moved_to" : null, "epoch" : null}"#), None);
        assert_eq!(hint_from_detail("bucket 3 is elsewhere"), None);
    }

    proptest! {
        #[test]
        fn no_detail_panics(detail in any::<String>()) {
            let _ = hint_from_detail(&detail);
        }

        #[test]
        fn only_the_letter_a_is_active(code: i8, moved_to: Option<i16>, epoch: Option<i64>) {
            let active = Ownership::from_gate(Some(code), moved_to, epoch) == Ownership::Active;
            prop_assert_eq!(active, code == b'A' as i8);
        }
    }
}
