//! Comparing two copies of a range, row by row: count and sum of hashes for each table and bucket.

use super::record::BucketRange;
use super::site::Site;
use super::{MoveError, sql};
use crate::server::within;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many places a report names.
const NAMED: usize = 5;
const PIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Rows and sum of their hashes, by table and bucket.
pub(super) type Sums = BTreeMap<(String, i32), (i64, String)>;

/// Both sides, each in one snapshot of the window.
pub(super) struct Pinned {
    pub from: Site,
    pub to: Site,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub rows: i64,
    pub different: Vec<(String, i32)>,
}

impl Pinned {
    /// Fixes what either side shows from now on.
    pub async fn pin(&mut self) -> Result<(), MoveError> {
        let (from, to) = tokio::join!(snapshot(&mut self.from), snapshot(&mut self.to));
        from.and(to)
    }

    /// Compares what was pinned, and lets go of it.
    pub async fn compare(
        mut self,
        tables: &[String],
        range: BucketRange,
        limit: Duration,
    ) -> Result<Comparison, MoveError> {
        self.from.bound(limit);
        self.to.bound(limit);
        let (ours, theirs) =
            tokio::join!(sums(&mut self.from, tables, range), sums(&mut self.to, tables, range));
        Ok(compare(&ours?, &theirs?))
    }
}

async fn snapshot(site: &mut Site) -> Result<(), MoveError> {
    site.command(PIN.to_owned()).await?;
    // A snapshot is taken by the first statement, not by BEGIN.
    site.one::<i64>(sqlx::query_scalar(sql::COUNT_STATE).bind(0).bind(0).bind("A").bind(1_i64))
        .await
        .map(|_| ())
}

/// Of every table, on one side.
pub(super) async fn sums(site: &mut Site, tables: &[String], range: BucketRange) -> Result<Sums, MoveError> {
    let mut found = Sums::new();
    for table in tables {
        let query = format!(
            "SELECT t.bucket, count(*), sum(hashtextextended(t::text, 0))::text FROM {table} t
             WHERE t.bucket BETWEEN $1 AND $2 GROUP BY t.bucket"
        );
        let query = sqlx::query(AssertSqlSafe(query)).bind(range.lo()).bind(range.hi());
        for row in site.rows(query).await? {
            let read = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            let (bucket, count, sum) = read(&row).map_err(site.place.said())?;
            found.insert((table.clone(), bucket), (count, sum));
        }
    }
    Ok(found)
}

pub(super) fn compare(ours: &Sums, theirs: &Sums) -> Comparison {
    let missing = theirs.keys().filter(|key| !ours.contains_key(*key));
    let unlike = ours.iter().filter(|(key, sum)| theirs.get(*key) != Some(*sum)).map(|(key, _)| key);
    Comparison {
        rows: ours.values().map(|(count, _)| count).sum(),
        different: unlike.chain(missing).cloned().collect(),
    }
}

impl Comparison {
    pub fn is_equal(&self) -> bool {
        self.different.is_empty()
    }

    /// The first few places that differ.
    pub fn describe(&self) -> String {
        let named: Vec<String> = self
            .different
            .iter()
            .take(NAMED)
            .map(|(table, bucket)| format!("{table} bucket {bucket}"))
            .collect();
        let more = self.different.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", named.join(", "))
    }
}

/// Reads the range once, which also warms the target's memory, and lets the planner know what came.
pub(super) async fn analyze(site: &mut Site, tables: &[String], limit: Duration) -> Result<(), MoveError> {
    let work = async {
        for table in tables {
            let query = sqlx::raw_sql(AssertSqlSafe(format!("ANALYZE {table}")));
            query.execute(&mut site.connection).await?;
        }
        Ok(())
    };
    within(limit, work).await.map_err(site.place.said())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(rows: &[(&str, i32, i64, &str)]) -> Sums {
        rows.iter().map(|(t, b, n, s)| (((*t).to_owned(), *b), (*n, (*s).to_owned()))).collect()
    }

    #[test]
    fn differences_are_found_on_either_side() {
        let ours = sums(&[("a", 1, 2, "5"), ("a", 2, 1, "7"), ("b", 1, 1, "1")]);
        assert!(compare(&ours, &ours).is_equal());
        assert_eq!(compare(&ours, &ours).rows, 4);
        let theirs = sums(&[("a", 1, 2, "5"), ("a", 2, 1, "8"), ("b", 2, 1, "1")]);
        let found = compare(&ours, &theirs);
        assert_eq!(found.different.len(), 3);
        assert_eq!(found.describe(), "a bucket 2, b bucket 1, b bucket 2");
    }
}
