//! The one shape that every statement on a shard's tables has.
//!
//! A row trigger never fires on zero rows: on a bucket that moved away, a bare `UPDATE … WHERE gen = 8`
//! answers "0 rows", which looks like a verdict and is none. So each statement reads the bucket's ownership
//! beside its own work, in one snapshot, and `LEFT JOIN` keeps the ownership when the work found nothing.

/// Whether `text` contains `part`, at compile time.
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
        if at == part.len() {
            return true;
        }
        start += 1;
    }
    false
}

/// A write that gates itself: `gated!(dml; columns)` or `gated!(ctes; dml; columns)`.
///
/// `$1` is always the bucket. The statement must read `FROM o` (or `USING o`) and demand `o.state = 'A'`
/// (checked at compile time); what it `RETURNING`s is `w`. The row always carries `owner_state`,
/// `owner_moved_to`, `owner_epoch`: read them with [`Ownership::from_row`](crate::Ownership::from_row) first.
/// The form with CTEs is for a second write in the same statement, which PostgreSQL takes at top level only.
///
/// ```
/// const RENAME: &str = shard_router::gated!(
///     "UPDATE shard.users u SET name = $3 FROM o WHERE o.state = 'A' AND u.bucket = $1 AND u.user_id = $2
///      RETURNING u.user_id";
///     "w.user_id"
/// );
/// assert!(RENAME.starts_with("WITH o AS"));
/// ```
/// A statement that forgets the gate does not compile:
/// ```compile_fail
/// const RENAME: &str = shard_router::gated!("UPDATE shard.users SET name = $3 WHERE bucket = $1"; "w.user_id");
/// ```
#[macro_export]
macro_rules! gated {
    ($dml:expr; $columns:expr) => {
        $crate::gated!(@checked "", $dml, $columns)
    };
    ($ctes:expr; $dml:expr; $columns:expr) => {
        $crate::gated!(@checked concat!(", ", $ctes), $dml, $columns)
    };
    (@checked $ctes:expr, $dml:expr, $columns:expr) => {{
        const _: () = assert!($crate::gate::mentions($dml, "o.state"), "a write must demand o.state = 'A'");
        $crate::gated!(@shape $ctes, $dml, $columns)
    }};
    (@shape $ctes:expr, $inner:expr, $columns:expr) => {
        concat!(
            "WITH o AS (SELECT state, moved_to, epoch FROM meta.bucket_owner WHERE bucket = $1)",
            $ctes,
            ", w AS (",
            $inner,
            ") SELECT o.state AS owner_state, o.moved_to AS owner_moved_to, o.epoch AS owner_epoch, ",
            $columns,
            " FROM o LEFT JOIN w ON true"
        )
    };
}

/// A read that gates itself: `gated_read!(select; columns)`, with the select as `w`.
///
/// As [`gated!`](crate::gated), except that the select need not mention `o`: what it found is believed only
/// if the ownership beside it is `Active` (on a replica, see SHARDING 2.4).
#[macro_export]
macro_rules! gated_read {
    ($select:expr; $columns:expr) => {
        $crate::gated!(@shape "", $select, $columns)
    };
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn statements_have_the_shape() {
        let sql = gated_read!("SELECT u.name FROM shard.users u WHERE u.bucket = $1"; "w.name");
        assert_eq!(
            sql,
            "WITH o AS (SELECT state, moved_to, epoch FROM meta.bucket_owner WHERE bucket = $1), \
             w AS (SELECT u.name FROM shard.users u WHERE u.bucket = $1) \
             SELECT o.state AS owner_state, o.moved_to AS owner_moved_to, o.epoch AS owner_epoch, w.name \
             FROM o LEFT JOIN w ON true"
        );
        let sql = gated!("x AS (SELECT 1)"; "DELETE FROM t USING o WHERE o.state = 'A' RETURNING t.a"; "w.a");
        assert!(sql.contains("bucket = $1), x AS (SELECT 1), w AS (DELETE"));
    }

    #[test]
    fn mentions_is_contains() {
        assert!(mentions("ab", "b") && mentions("ab", "ab") && mentions("aab", "ab") && mentions("", ""));
        assert!(!mentions("ab", "c") && !mentions("a", "ab") && !mentions("", "a"));
    }
}
