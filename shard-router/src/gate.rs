//! The shapes that every statement on a shard's tables has.
//!
//! What keeps a write off somebody else's bucket are the policies on each table (`meta.protect`): rows of a bucket that is
//! not ours are not found, and a new one is refused with an error. So "0 rows" looks like a verdict and is none: a statement
//! that found nothing asks for the bucket's ownership beside its own work, in one snapshot, and a read always does.
//! `LEFT JOIN` keeps the ownership when the work found nothing.
use crate::ownership::Ownership;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};

/// A statement that never takes "not ours" for "not there": made by [`gated!`](crate::gated) or
/// [`gated_read!`](crate::gated_read).
#[derive(Clone, Copy, Debug)]
pub struct Gated {
    work: Option<&'static str>,
    gate: &'static str,
}

impl Gated {
    /// For the macros: the work alone, where that may be tried first, and with the ownership beside it.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(work: Option<&'static str>, gate: &'static str) -> Self {
        Self { work, gate }
    }

    /// Runs it; `$1` is the bucket. Under [`Ownership::Active`] the rows are the work's; if it found nothing, there is one
    /// whose columns are all NULL, and that is a verdict. Under anything else nothing was changed, and the rows say nothing.
    ///
    /// A write is tried without its gate first: what comes back was ours. One that found nothing is done again with it,
    /// because the ownership of a moment later would not tell whether the rows had been hidden.
    ///
    /// # Errors
    /// The database's. [`Ownership::from_error`] tells those that are an answer about the bucket.
    pub async fn run(
        &self,
        conn: &mut PgConnection,
        args: PgArguments,
    ) -> Result<(Ownership, Vec<PgRow>), sqlx::Error> {
        if let Some(work) = self.work {
            let rows = sqlx::query_with(work, args.clone()).fetch_all(&mut *conn).await?;
            if !rows.is_empty() {
                return Ok((Ownership::Active, rows));
            }
        }
        let rows = sqlx::query_with(self.gate, args).fetch_all(conn).await?;
        Ok((Ownership::from_row(rows.first())?, rows))
    }
}

/// Whether `text` contains `part`, at compile time; one that ends with a digit is not followed by another.
#[doc(hidden)]
#[must_use]
pub const fn mentions(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    let mut start = 0;
    while start + part.len() <= text.len() {
        let mut at = 0;
        while at < part.len() && text[start + at] == part[at] {
            at += 1;
        }
        let end = start + at;
        let goes_on =
            at > 0 && part[at - 1].is_ascii_digit() && end < text.len() && text[end].is_ascii_digit();
        if at == part.len() && !goes_on {
            return true;
        }
        start += 1;
    }
    false
}

/// Names the bucket, `$1`: as a condition or as the first value of a new row.
#[doc(hidden)]
#[must_use]
pub const fn names_bucket(dml: &str) -> bool {
    mentions(dml, "bucket = $1") || mentions(dml, "SELECT $1") || mentions(dml, "VALUES ($1")
}

/// Can stand alone and inside `WITH`, names its bucket, and returns something.
#[doc(hidden)]
#[must_use]
pub const fn is_write(dml: &str) -> bool {
    let begins = matches!(dml.as_bytes(), [b'I' | b'U' | b'D', ..]);
    begins && mentions(dml, "RETURNING") && names_bucket(dml)
}

/// A write as a [`Gated`]: `gated!(dml)`, `gated!(ctes; dml)` or `gated!(ctes; dml; columns)`.
///
/// `$1` is always the bucket, and the statement must name it and return something (checked at compile time).
/// The forms with CTEs are for several writes in one statement, which PostgreSQL takes at top level only; they answer what the
/// last one, `w`, returns, or `columns` of it and of the others. They have no first try, because a CTE may have written when
/// `w` has not.
///
/// ```
/// const RENAME: shard_router::Gated = shard_router::gated!(
///     "UPDATE shard.users u SET name = $3 WHERE u.bucket = $1 AND u.user_id = $2 RETURNING u.user_id"
/// );
/// ```
/// A statement that forgets its bucket does not compile, nor one whose rows nobody would see:
/// ```compile_fail
/// const RENAME: shard_router::Gated =
///     shard_router::gated!("UPDATE shard.users u SET name = $2 WHERE u.user_id = $3 RETURNING u.user_id");
/// ```
/// ```compile_fail
/// const RENAME: shard_router::Gated = shard_router::gated!("UPDATE shard.users SET name = $2 WHERE bucket = $1");
/// ```
#[macro_export]
macro_rules! gated {
    ($dml:expr) => {{
        const _: () = assert!($crate::gate::is_write($dml), "a write names its bucket, $1, and returns something");
        $crate::Gated::new(
            Some($dml),
            concat!(
                "WITH o AS (SELECT state, moved_to, epoch FROM meta.bucket_owner WHERE bucket = $1), w AS (",
                $dml,
                ") SELECT o.state AS owner_state, o.moved_to AS owner_moved_to, o.epoch AS owner_epoch, w.*
                 FROM o LEFT JOIN w ON true"
            ),
        )
    }};
    ($ctes:expr; $dml:expr) => {
        $crate::gated!($ctes; $dml; "w.*")
    };
    ($ctes:expr; $dml:expr; $columns:expr) => {{
        const _: () = assert!($crate::gate::names_bucket($ctes), "a write names its bucket, $1");
        // The last one either writes too, or tells only what the others did.
        const _: () = assert!($crate::gate::is_write($dml) || !$crate::gate::mentions($dml, "RETURNING"));
        $crate::Gated::new(
            None,
            concat!(
                "WITH o AS (SELECT state, moved_to, epoch FROM meta.bucket_owner WHERE bucket = $1), ",
                $ctes,
                ", w AS (",
                $dml,
                ") SELECT o.state AS owner_state, o.moved_to AS owner_moved_to, o.epoch AS owner_epoch, ",
                $columns,
                " FROM o LEFT JOIN w ON true"
            ),
        )
    }};
}

/// A read, or a lock, as a [`Gated`]: `gated_read!(select)`, or `gated_read!(select; columns)` to answer more than the
/// columns of the select, which is `w`.
///
/// What it found is believed only if the ownership beside it is `Active` (on a replica, see docs/reads.md). A lock
/// finds rows of a bucket that is ours only, as a write does.
#[macro_export]
macro_rules! gated_read {
    ($select:expr) => {
        $crate::gated_read!($select; "w.*")
    };
    ($select:expr; $columns:expr) => {
        $crate::Gated::new(
            None,
            concat!(
                "SELECT o.state AS owner_state, o.moved_to AS owner_moved_to, o.epoch AS owner_epoch, ",
                $columns,
                " FROM meta.bucket_owner o LEFT JOIN (",
                $select,
                ") w ON true WHERE o.bucket = $1"
            ),
        )
    };
}

#[cfg(test)]
mod tests {
    use super::{Gated, is_write, mentions};

    #[test]
    fn statements_have_the_shape() {
        const READ: Gated = gated_read!("SELECT u.name FROM shard.users u WHERE u.bucket = $1");
        assert_eq!(READ.work, None);
        assert_eq!(
            READ.gate,
            "SELECT o.state AS owner_state, o.moved_to AS owner_moved_to, o.epoch AS owner_epoch, w.* \
             FROM meta.bucket_owner o LEFT JOIN (SELECT u.name FROM shard.users u WHERE u.bucket = $1) w \
             ON true WHERE o.bucket = $1"
        );
        const WRITE: Gated = gated!("DELETE FROM t WHERE t.bucket = $1 RETURNING t.a");
        assert_eq!(WRITE.work, Some("DELETE FROM t WHERE t.bucket = $1 RETURNING t.a"));
        assert!(WRITE.gate.contains("bucket = $1), w AS (DELETE FROM t WHERE t.bucket = $1 RETURNING t.a)"));
        const BOTH: Gated = gated!("x AS (DELETE FROM s WHERE s.bucket = $1)"; "DELETE FROM t WHERE t.bucket = $1 RETURNING t.a");
        assert_eq!(BOTH.work, None, "the first of two may have written when the second has not");
        assert!(BOTH.gate.contains("bucket = $1), x AS (DELETE FROM s"));
    }

    #[test]
    fn a_write_names_its_bucket() {
        assert!(is_write("UPDATE t SET a = $2 WHERE t.bucket = $1 RETURNING a"));
        assert!(is_write("INSERT INTO t (bucket) VALUES ($1) RETURNING a"));
        assert!(!is_write("UPDATE t SET a = $2 WHERE t.bucket = $2 RETURNING a"));
        assert!(!is_write("UPDATE t SET a = $2 WHERE t.bucket = $1"));
        assert!(!is_write("UPDATE t SET a = $2 WHERE t.bucket = $10 RETURNING a"));
        assert!(!is_write("UPDATE t SET a = f($1) WHERE t.id = $2 RETURNING a"));
        assert!(!is_write("WITH x AS (SELECT 1) UPDATE t SET a = 1 WHERE t.bucket = $1 RETURNING a"));
    }

    #[test]
    fn mentions_is_contains() {
        assert!(mentions("ab", "b") && mentions("ab", "ab") && mentions("aab", "ab") && mentions("", ""));
        assert!(mentions("$10, $1", "$1") && !mentions("$10", "$1"));
        assert!(!mentions("ab", "c") && !mentions("a", "ab") && !mentions("", "a"));
    }
}
