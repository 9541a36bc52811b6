//! The one place that talks to `shard-router`: which shards there are, and which buckets each of them owns.

use crate::error::{Error, Result};
use crate::site::Site;
use crate::state::State;

/// Writes every shard's addresses into the directory; repeated after a promotion.
pub(crate) async fn register_shards(_site: &Site, _state: &State) -> Result<()> {
    Err(Error::new("shard-router does not offer register_shards yet"))
}

/// Places the buckets, unless they are placed.
pub(crate) async fn assign_buckets(_site: &Site, _state: &State) -> Result<()> {
    Err(Error::new("shard-router does not offer assign_buckets yet"))
}
