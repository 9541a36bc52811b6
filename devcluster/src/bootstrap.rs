//! The one place that talks to `shard-router`: which shards there are, and which buckets each of them owns.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shard_router::directory::{self, Directory, Fingerprints, NewShard};
use shard_router::shard_key::{LookupKey, RoutingKey};
use shard_router::{Address, Login, ShardId};

use crate::error::{Context, Error, Result};
use crate::plan::{Kind, Part};
use crate::postgres::{ADMIN, DATABASE};
use crate::site::Site;
use crate::state::State;

/// Two cores may be busy with a whole cluster that starts.
const LIMIT: Duration = Duration::from_secs(30);
const ORDINARY_WEIGHT: u32 = 1;

/// Writes the addresses of these shards into the directory; repeated after a promotion.
pub(crate) async fn register_shards(
    site: &Site,
    state: &State,
    shards: impl IntoIterator<Item = u16>,
) -> Result<()> {
    let shards = shards.into_iter().map(|shard| new_shard(state, shard)).collect::<Result<Vec<_>>>()?;
    directory::register_shards(&client(site, state)?, &shards)
        .await
        .could_not("write the shards into the directory")
}

/// Places the buckets, unless they are placed.
pub(crate) async fn assign_buckets(site: &Site, state: &State) -> Result<()> {
    let routing = RoutingKey::new(permanent_key(site, "routing.key")?);
    let lookup = LookupKey::new(permanent_key(site, "lookup.key")?);
    let fingerprints = Fingerprints::of(&routing, &lookup);
    directory::assign_buckets(&client(site, state)?, &fingerprints).await.could_not("place the buckets")
}

/// What was promoted by force may lack writes, also about what it owns: it answers for nothing until `shardctl reconcile`.
pub(crate) async fn quarantine(site: &Site, part: &Part) -> Result<()> {
    let shard = part.kind.shard().and_then(|shard| i16::try_from(shard).ok()).and_then(ShardId::new);
    let shard = shard.ok_or_else(|| Error::new(format!("{} is no part of a shard", part.name)))?;
    let login = Login { user: ADMIN.into(), password: site.passwords.admin.clone() };
    shard_router::quarantine::quarantine_at(&address(part), &login, shard)
        .await
        .could_not("put the shard in quarantine")
        .map(|_| ())
}

fn client(site: &Site, state: &State) -> Result<Directory> {
    let login = Login { user: ADMIN.into(), password: site.passwords.admin.clone() };
    Ok(Directory::new(address(&state.part(&Kind::Directory.name())?.part), login, LIMIT))
}

fn new_shard(state: &State, shard: u16) -> Result<NewShard> {
    let primary = &state.primary(shard)?.part;
    let number = i16::try_from(shard).ok().and_then(ShardId::new);
    Ok(NewShard {
        shard_id: number.ok_or_else(|| Error::new(format!("there can be no shard {shard}")))?,
        primary: address(primary),
        replicas: state.siblings(primary).iter().map(address).collect(),
        weight: ORDINARY_WEIGHT,
    })
}

fn address(part: &Part) -> Address {
    Address::new("127.0.0.1", part.port, DATABASE)
}

fn permanent_key(site: &Site, name: &str) -> Result<[u8; 32]> {
    let path = site.home.secrets().join(name);
    let text = std::fs::read_to_string(&path).could_not(format_args!("read {}", path.display()))?;
    let bytes = URL_SAFE_NO_PAD.decode(text.trim()).could_not(format_args!("decode {}", path.display()))?;
    bytes.try_into().map_err(|_| Error::new(format!("{} does not hold 32 bytes", path.display())))
}
