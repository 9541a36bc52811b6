//! Deleting the copy that nobody owns any more, or not yet.
//!
//! The rows of a range go bucket by bucket, each deletion in one statement that looks at the ownership beside it: state
//! `I` or `M`, and armed for exactly this purpose. A deletion that comes too late finds another attempt and deletes nothing.

use super::record::BucketRange;
use super::site::Site;
use super::{MoveError, sql};
use sqlx::AssertSqlSafe;

/// No window ever has this number: armed with it, a shard can only be emptied.
pub(super) const BURNT: i32 = i32::MAX;
/// Before the first window: armed with it, a shard may be emptied for the copy.
pub(super) const EMPTYING: i32 = 0;

/// Arms a range on the shard that does not own it.
pub(super) async fn arm(
    site: &mut Site,
    range: BucketRange,
    move_id: i64,
    attempt: i32,
) -> Result<(), MoveError> {
    let (lo, hi) = (range.lo(), range.hi());
    site.run(sqlx::query(sql::ARM).bind(lo).bind(hi).bind(move_id).bind(attempt)).await?;
    let query = sqlx::query_scalar(sql::COUNT_ARMED).bind(lo).bind(hi).bind(move_id).bind(attempt);
    let armed: i64 = site.one(query).await?;
    if u64::try_from(armed) == Ok(range.len()) {
        return Ok(());
    }
    let (place, all) = (site.place, range.len());
    Err(MoveError::Superseded(format!("{place} accepts move {move_id} for {armed} of {all} buckets only")))
}

/// Deletes every row of a range that is armed with `attempt`. The connection is good for nothing else afterwards.
pub(super) async fn delete_rows(
    mut site: Site,
    tables: &[String],
    range: BucketRange,
    (move_id, attempt): (i64, i32),
) -> Result<u64, MoveError> {
    // The ownership trigger refuses deletions on what is not active; the statement's own condition takes its place.
    site.command("SET session_replication_role = replica".to_owned()).await?;
    let mut deleted = 0;
    for bucket in range.lo()..=range.hi() {
        for table in tables {
            let query = format!(
                "DELETE FROM {table} t USING meta.bucket_owner o
                 WHERE o.bucket = $1 AND o.state IN ('I', 'M') AND o.move_id = $2 AND o.attempt = $3 AND t.bucket = $1"
            );
            let query = sqlx::query(AssertSqlSafe(query)).bind(bucket).bind(move_id).bind(attempt);
            deleted += site.run(query).await?;
        }
    }
    Ok(deleted)
}
