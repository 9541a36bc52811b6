//! How shardctl reaches the directory, and with whose rights.

use crate::Failure;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use shard_key::{Bucket, LookupKey, RoutingKey, UserId};
use shard_router::directory::{Directory, Fingerprints, NewShard};
use shard_router::moves::BucketRange;
use shard_router::{Address, Login, ShardId};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Reach {
    /// The directory database, HOST:PORT or HOST:PORT/DATABASE.
    #[arg(long, default_value = "127.0.0.1:5600", value_parser = parse_address)]
    pub directory: Address,
    /// Folder of the secrets: passwords, and for bootstrap the permanent keys.
    #[arg(long)]
    pub secrets: PathBuf,
    /// Role for looking at the map.
    #[arg(long, default_value = "tessera_app")]
    pub user: String,
    /// Role for everything that changes something: owner of the tables, and for moves a superuser.
    #[arg(long, default_value = "postgres")]
    pub admin_user: String,
    /// Role as which one shard reads from another what is moved.
    #[arg(long, default_value = "tessera_stream")]
    pub stream_user: String,
}

impl Reach {
    pub fn login(&self, user: &str, password_file: &str) -> Result<Login, Failure> {
        let path = self.secrets.join(password_file);
        let password =
            std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Login { user: user.to_owned(), password: password.trim_end().to_owned() })
    }

    pub fn as_app(&self) -> Result<Directory, Failure> {
        let login = self.login(&self.user, "postgres.password")?;
        Ok(Directory::new(self.directory.clone(), login, TIMEOUT))
    }

    pub fn as_admin(&self) -> Result<Directory, Failure> {
        let login = self.login(&self.admin_user, "postgres-admin.password")?;
        Ok(Directory::new(self.directory.clone(), login, TIMEOUT))
    }

    /// Without its password a move cannot begin, and says so; what else an operator wants goes on.
    pub fn as_stream(&self) -> Option<Login> {
        self.login(&self.stream_user, "postgres-stream.password").ok()
    }

    pub fn fingerprints(&self) -> Result<Fingerprints, Failure> {
        let routing = RoutingKey::new(read_key(&self.secrets.join("routing.key"))?);
        let lookup = LookupKey::new(read_key(&self.secrets.join("lookup.key"))?);
        Ok(Fingerprints::of(&routing, &lookup))
    }
}

fn read_key(path: &Path) -> Result<[u8; 32], Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Failure::WrongKey(format!("{}: not 32 bytes of base64url", path.display())))
}

pub fn parse_address(text: &str) -> Result<Address, String> {
    let (server, dbname) = text.split_once('/').unwrap_or((text, "tessera"));
    let (host, port) = server.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let port = port.parse().map_err(|_| format!("{port} is no port"))?;
    if host.is_empty() || dbname.is_empty() {
        return Err("expected HOST:PORT or HOST:PORT/DATABASE".to_owned());
    }
    Ok(Address::new(host, port, dbname))
}

pub fn parse_shard(text: &str) -> Result<NewShard, String> {
    let (id, rest) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    let shard_id = parse_shard_id(id)?;
    let (primary, replicas) = match rest.split_once(',') {
        None => (rest, None),
        Some((primary, more)) => {
            let listed =
                more.strip_prefix("replicas=").ok_or("expected ,replicas=HOST:PORT,… after the primary")?;
            (primary, Some(listed))
        }
    };
    let replicas = replicas.into_iter().flat_map(|list| list.split(',')).map(parse_address);
    Ok(NewShard {
        shard_id,
        primary: parse_address(primary)?,
        replicas: replicas.collect::<Result<_, _>>()?,
        weight: 1,
    })
}

pub fn parse_target(text: &str) -> Result<Bucket, String> {
    if let Ok(id) = text.parse::<UserId>() {
        return Ok(id.bucket());
    }
    text.parse()
        .ok()
        .and_then(Bucket::new)
        .ok_or_else(|| "neither a bucket (0–16383) nor a user id".to_owned())
}

/// `LO-HI`, both included, or one bucket.
pub fn parse_range(text: &str) -> Result<BucketRange, String> {
    let (lo, hi) = text.split_once('-').unwrap_or((text, text));
    let bucket =
        |text: &str| text.parse().ok().and_then(Bucket::new).ok_or_else(|| format!("{text} is no bucket"));
    BucketRange::new(bucket(lo)?, bucket(hi)?).ok_or_else(|| format!("{hi} lies before {lo}"))
}

/// `ID=WEIGHT`.
pub fn parse_weight(text: &str) -> Result<(ShardId, u32), String> {
    let (id, weight) = text.split_once('=').ok_or("expected ID=WEIGHT")?;
    Ok((parse_shard_id(id)?, weight.parse().map_err(|_| format!("{weight} is no weight"))?))
}

pub fn parse_shard_id(text: &str) -> Result<ShardId, String> {
    text.parse().ok().and_then(ShardId::new).ok_or_else(|| format!("{text} is no shard id"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_with_and_without_replicas() {
        let shard = parse_shard("2=db.local:5432,replicas=10.0.0.1:5433,10.0.0.2:5434").unwrap();
        assert_eq!((shard.shard_id.get(), shard.primary), (2, Address::new("db.local", 5432, "tessera")));
        let ports: Vec<u16> = shard.replicas.iter().map(|replica| replica.port).collect();
        assert_eq!(ports, [5433, 5434]);
        assert!(parse_shard("1=127.0.0.1:5602").unwrap().replicas.is_empty());
        for wrong in ["", "1", "0=a:1", "1=a", "1=a:x", "1=a:1,b:2", "1=a:1,replicas=b"] {
            assert!(parse_shard(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_are_buckets_or_users() {
        let user = UserId::generate(Bucket::new(77).unwrap(), 1, [0; 8]);
        assert_eq!(parse_target(&user.to_string()).unwrap().get(), 77);
        assert_eq!(parse_target("16383").unwrap().get(), 16383);
        assert!(parse_target("16384").is_err() && parse_target("ada").is_err());
    }

    #[test]
    fn ranges_are_one_bucket_or_two() {
        assert_eq!(parse_range("7").unwrap().len(), 1);
        assert_eq!(parse_range("0-63").unwrap().len(), 64);
        for wrong in ["", "5-4", "0-16384", "a-b", "-3"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }
}
