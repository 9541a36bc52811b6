//! The migrations that a binary knows, and what it makes of those that a database has. Pure.
//!
//! A migration's stage is in its name, which PostgreSQL keeps beside the checksum: so an older binary can tell of a
//! migration that it does not know whether it may go on serving.

use sha2::{Digest, Sha256};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};
use std::fmt;

/// The oldest schema of a shard that every statement of this binary still works with.
const OLDEST_SHARD_SCHEMA: i64 = 2;
/// The directory has no statement that needs a migration later than its first.
const OLDEST_DIRECTORY_SCHEMA: i64 = 1;

/// What a migration does to the binaries that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Adds; whatever worked before works on.
    Expand,
    /// Takes away what no binary that serves needs any more. Its file is called `NNNN_contract_….sql`.
    Contract,
}

impl Stage {
    /// By the name of a migration, with blanks for underscores, as the history has it.
    fn of(name: &str) -> Self {
        if name.starts_with("contract ") { Self::Contract } else { Self::Expand }
    }

    /// As stored.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
        }
    }
}

/// A migration that a database has applied: version, name, checksum.
pub(crate) type Applied = (i64, String, Vec<u8>);

/// Why a binary must not work with a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// A migration is missing, or is not the one that we know by that number.
    #[error("its history differs from this binary's at migration {0}")]
    History(i64),
    /// Our statements need more than it has.
    #[error(
        "its schema is at migration {version}, and this binary serves {oldest} to {latest}: run `auth-node migrate`"
    )]
    TooOld {
        /// What it has.
        version: i64,
        /// The least that we need.
        oldest: i64,
        /// The newest that we know.
        latest: i64,
    },
    /// It has lost something that our statements may need.
    #[error(
        "its schema was contracted by migration {version}, and this binary serves {oldest} to {latest}: \
         a newer binary is needed"
    )]
    Contracted {
        /// The first contraction that we do not know.
        version: i64,
        /// The least that we need.
        oldest: i64,
        /// The newest that we know.
        latest: i64,
    },
}

/// The migrations that a binary knows, ascending, and the range of schemas that it serves: from `oldest` to its
/// latest migration, and to any later one as long as those only add.
#[derive(Clone)]
pub struct Schema {
    migrations: Vec<Migration>,
    namespace: &'static str,
    oldest: i64,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({} {}..={})", self.namespace, self.oldest, self.latest())
    }
}

impl Schema {
    /// What is embedded for shards.
    #[must_use]
    pub fn of_shards() -> Self {
        let migrations = sqlx::migrate!("../migrations/shard").migrations.into_owned();
        Self { migrations, namespace: "meta", oldest: OLDEST_SHARD_SCHEMA }
    }

    /// What is embedded for the directory.
    pub(crate) fn of_directory() -> Self {
        let migrations = sqlx::migrate!("../migrations/directory").migrations.into_owned();
        Self { migrations, namespace: "directory", oldest: OLDEST_DIRECTORY_SCHEMA }
    }

    /// The same with one more migration, as if it were embedded: `name` is that of its file, without the number.
    #[must_use]
    pub fn with(mut self, version: i64, name: &str, sql: &str) -> Self {
        let text = AssertSqlSafe(sql.to_owned()).into_sql_str();
        let alone = sql.starts_with("-- no-transaction");
        let kind = MigrationType::Simple;
        self.migrations.push(Migration::new(version, name.replace('_', " ").into(), kind, text, alone));
        self
    }

    /// The same with statements that need at least this version.
    #[must_use]
    pub fn needing(mut self, oldest: i64) -> Self {
        self.oldest = oldest;
        self
    }

    /// The newest migration that we know.
    #[must_use]
    pub fn latest(&self) -> i64 {
        self.migrations.last().map_or(0, |migration| migration.version)
    }

    /// Names the whole schema: 16 hex digits.
    #[must_use]
    pub fn hash(&self) -> String {
        hash(self.migrations.iter().map(|migration| (migration.version, &*migration.checksum)))
    }

    pub(crate) fn namespace(&self) -> &'static str {
        self.namespace
    }

    /// Whether a history is ours as far as both go, and adds nothing but additions. Answers its version.
    pub(crate) fn history(&self, applied: &[Applied]) -> Result<i64, Misfit> {
        let mut ours = self.migrations.iter();
        for (version, name, checksum) in applied {
            match ours.next() {
                Some(known) if known.version == *version && *known.checksum == **checksum => {}
                Some(known) => return Err(Misfit::History(known.version.min(*version))),
                None if Stage::of(name) == Stage::Contract => {
                    let (oldest, latest) = (self.oldest, self.latest());
                    return Err(Misfit::Contracted { version: *version, oldest, latest });
                }
                None => {}
            }
        }
        Ok(version_of(applied))
    }

    /// Whether our statements work with a database of this history.
    pub(crate) fn serves(&self, applied: &[Applied]) -> Result<(), Misfit> {
        let version = self.history(applied)?;
        if version < self.oldest {
            return Err(Misfit::TooOld { version, oldest: self.oldest, latest: self.latest() });
        }
        Ok(())
    }

    /// The migrations after `version`, up to `target`.
    pub(crate) fn pending(&self, version: i64, target: i64) -> impl Iterator<Item = &Migration> {
        self.migrations.iter().filter(move |m| m.version > version && m.version <= target)
    }

    /// The latest migration that can be reached from `version` without another contraction.
    pub(crate) fn expanded(&self, version: i64) -> i64 {
        let mut ahead = self.migrations.iter().filter(|migration| migration.version > version);
        let barrier = ahead.find(|m| Stage::of(&m.description) == Stage::Contract).map(|m| m.version);
        let before = |m: &&Migration| barrier.is_none_or(|barrier| m.version < barrier);
        self.migrations.iter().rfind(before).map_or(0, |migration| migration.version)
    }

    /// Whether anything is taken away after `version`, up to `target`.
    pub(crate) fn contracts(&self, version: i64, target: i64) -> bool {
        self.pending(version, target).any(|migration| Stage::of(&migration.description) == Stage::Contract)
    }

    /// SQLx's own runner, which keeps the history. It does not mind migrations that we do not know: [`history`](Self::history) does.
    pub(crate) fn migrator(&self) -> Migrator {
        let mut migrator = Migrator::with_migrations(self.migrations.clone());
        migrator.dangerous_set_table_name(format!("{}.applied_migration", self.namespace));
        migrator.create_schema(self.namespace);
        migrator.set_ignore_missing(true);
        migrator
    }
}

/// The highest migration of a history.
pub(crate) fn version_of(applied: &[Applied]) -> i64 {
    applied.last().map_or(0, |(version, ..)| *version)
}

/// The stage of the highest migration of a history.
pub(crate) fn stage_of(applied: &[Applied]) -> Stage {
    applied.last().map_or(Stage::Expand, |(_, name, _)| Stage::of(name))
}

/// Names a history: equal to [`Schema::hash`] if it is all that this binary knows.
pub(crate) fn hash_of(applied: &[Applied]) -> String {
    hash(applied.iter().map(|(version, _, checksum)| (*version, checksum.as_slice())))
}

fn hash<'a>(migrations: impl Iterator<Item = (i64, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    for (version, checksum) in migrations {
        hash.update(version.to_be_bytes());
        hash.update(checksum);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 and 2 add, 3 takes away, 4 adds.
    fn schema(latest: i64) -> Schema {
        let empty = Schema { migrations: Vec::new(), namespace: "meta", oldest: 2 };
        let names = ["users", "wide", "contract_narrow", "more"];
        (1..)
            .zip(names)
            .take_while(|(version, _)| *version <= latest)
            .fold(empty, |schema, (version, name)| schema.with(version, name, &format!("SELECT {version}")))
    }

    fn applied(latest: i64) -> Vec<Applied> {
        let row = |m: &Migration| (m.version, m.description.to_string(), m.checksum.to_vec());
        schema(latest).migrations.iter().map(row).collect()
    }

    #[test]
    fn a_range_is_served() {
        let answers: Vec<_> = (0..=4).map(|version| schema(2).serves(&applied(version))).collect();
        let too_old = |version| Err(Misfit::TooOld { version, oldest: 2, latest: 2 });
        let contracted = Err(Misfit::Contracted { version: 3, oldest: 2, latest: 2 });
        assert_eq!(answers, [too_old(0), too_old(1), Ok(()), contracted.clone(), contracted]);
        // Who knows the contraction serves before it, after it, and beyond what it knows.
        for version in 2..=4 {
            assert_eq!(schema(3).serves(&applied(version)), Ok(()), "{version}");
        }
        // An addition that we do not know.
        let mut further = applied(2);
        further.push((9, "an index".to_owned(), vec![9]));
        assert_eq!(schema(2).serves(&further), Ok(()));
    }

    #[test]
    fn another_history_is_never_served() {
        let mut altered = applied(4);
        altered[1].2 = vec![0];
        assert_eq!(schema(4).serves(&altered), Err(Misfit::History(2)));
        let mut gap = applied(4);
        gap.remove(1);
        assert_eq!(schema(4).serves(&gap), Err(Misfit::History(2)));
        let mut foreign = applied(2);
        foreign[1].0 = 7;
        assert_eq!(schema(4).serves(&foreign), Err(Misfit::History(2)));
    }

    #[test]
    fn an_expansion_stops_before_the_next_contraction() {
        assert_eq!([0, 1, 2, 3, 4].map(|version| schema(4).expanded(version)), [2, 2, 2, 4, 4]);
        assert_eq!(schema(4).pending(1, 3).map(|m| m.version).collect::<Vec<_>>(), [2, 3]);
        assert!(schema(4).contracts(1, 3) && !schema(4).contracts(1, 2) && !schema(4).contracts(3, 4));
    }

    #[test]
    fn a_history_has_the_name_of_its_schema() {
        assert_eq!(hash_of(&applied(4)), schema(4).hash());
        assert_ne!(hash_of(&applied(3)), schema(4).hash());
    }

    #[test]
    fn what_is_embedded_can_be_served() {
        let shards = Schema::of_shards();
        assert!(shards.oldest <= shards.latest());
        assert!(shards.migrations.is_sorted_by_key(|migration| migration.version));
    }
}
