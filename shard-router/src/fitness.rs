//! Whether a shard's schema is still one that this binary serves.
//!
//! The probe of the primary sees the number of the latest migration each time, and reads the history when that has
//! changed. Not per request: whoever contracts a schema under nodes that need it has been told not to, and this is
//! the net below.

use crate::map::ShardId;
use crate::migrate::{Misfit, Schema, shard_history};
use sqlx::postgres::PgConnection;
use std::sync::{Arc, Mutex, PoisonError};

/// What is known of one shard's schema. Believed fit until seen otherwise.
#[derive(Debug)]
pub(crate) struct Fitness {
    schema: Arc<Schema>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    version: Option<i64>,
    misfit: Option<Misfit>,
}

impl Fitness {
    pub(crate) fn new(schema: Arc<Schema>) -> Self {
        Self { schema, seen: Mutex::default() }
    }

    /// Why the shard must not be used.
    pub(crate) fn misfit(&self) -> Option<Misfit> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).misfit.clone()
    }

    /// Judges the history if `version` is not the one that was judged last.
    pub(crate) async fn look(
        &self,
        shard: ShardId,
        connection: &mut PgConnection,
        version: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).version == version {
            return Ok(());
        }
        let misfit = self.schema.serves(&shard_history(connection).await?).err();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match (&seen.misfit, &misfit) {
            (None, Some(why)) => tracing::error!(shard.id = %shard, error = %why, "shard shed"),
            (Some(_), None) => tracing::info!(shard.id = %shard, "shard's schema fits again"),
            _ => {}
        }
        *seen = Seen { version, misfit };
        Ok(())
    }

    pub(crate) fn report(&self, shard: ShardId) {
        let fits = f64::from(u8::from(self.misfit().is_none()));
        metrics::gauge!("tessera_shard_schema_fits", "shard" => shard.to_string()).set(fits);
    }
}
