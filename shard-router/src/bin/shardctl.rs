//! `shardctl`: what an operator asks of the shards, and their first hour.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use shard_key::{Bucket, LookupKey, RoutingKey, UserId};
use shard_router::directory::{
    BootstrapError, Directory, Fingerprints, NewShard, assign_buckets, register_shards,
};
use shard_router::migrate::{migrate_directory, migrate_shards};
use shard_router::{Address, Login, ShardId};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

const EXIT_CODES: &str = "Exit codes:
  0  done, and all is well
  1  something cannot be reached, or a shard is not as it should be
  2  wrong usage, or a permanent key is not the one that the data was written with";

/// Looks at shards, and sets a new cluster up.
#[derive(Parser)]
#[command(name = "shardctl", after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    reach: Reach,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Reach {
    /// The directory database, HOST:PORT or HOST:PORT/DATABASE.
    #[arg(long, default_value = "127.0.0.1:5600", value_parser = parse_address)]
    directory: Address,
    /// Folder of the secrets: passwords, and for bootstrap the permanent keys.
    #[arg(long)]
    secrets: PathBuf,
    /// Role for looking.
    #[arg(long, default_value = "tessera_app")]
    user: String,
    /// Role for bootstrap, owner of the tables.
    #[arg(long, default_value = "postgres")]
    admin_user: String,
}

#[derive(Subcommand)]
enum Command {
    /// Versions of the directory, and each shard's schema and buckets.
    Status,
    /// Migrates, registers the shards and places every bucket. May be repeated.
    Bootstrap {
        /// ID=HOST:PORT[,replicas=HOST:PORT,HOST:PORT…], once for each shard.
        #[arg(long = "shard", required = true, value_parser = parse_shard)]
        shards: Vec<NewShard>,
    },
    /// Where a bucket or a user is.
    Map {
        /// A bucket number or a user id.
        #[arg(value_parser = parse_target)]
        target: Bucket,
    },
}

/// What to print, and whether all is well.
struct Report {
    text: String,
    json: Value,
    well: bool,
}

enum Failure {
    Unavailable(String),
    WrongKey(String),
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Unavailable(error.to_string())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Status => status(&cli.reach).await,
        Command::Bootstrap { shards } => bootstrap(&cli.reach, shards).await,
        Command::Map { target } => map(&cli.reach, *target).await,
    };
    match outcome {
        Ok(report) => {
            if cli.json {
                println!("{}", report.json);
            } else {
                print!("{}", report.text);
            }
            ExitCode::from(u8::from(!report.well))
        }
        Err(Failure::Unavailable(reason)) => {
            eprintln!("shardctl: {reason}");
            ExitCode::from(1)
        }
        Err(Failure::WrongKey(reason)) => {
            eprintln!("shardctl: {reason}");
            ExitCode::from(2)
        }
    }
}

async fn status(reach: &Reach) -> Result<Report, Failure> {
    let directory = reach.as_app()?;
    let versions = directory.versions().await.map_err(|error| format!("directory: {error}"))?;
    let mut text = format!("directory {}", reach.directory);
    for (section, version) in &versions {
        write!(text, "  {section} v{version}")?;
    }
    text.push('\n');
    let (mut rows, mut well) = (Vec::new(), true);
    for shard in directory.shards().await? {
        let replicas: Vec<String> = shard.replicas.iter().map(ToString::to_string).collect();
        write!(text, "shard {:<3} {:<21} ", shard.shard_id, shard.primary.to_string())?;
        let told = directory.inspect(&shard).await;
        match &told {
            Ok(report) => {
                well &= report.schema_matches;
                let buckets: Vec<String> = report.buckets.iter().map(|(s, n)| format!("{s} {n}")).collect();
                let schema = if report.schema_matches { "ok" } else { "DIFFERS" };
                writeln!(text, "schema {} {schema}  buckets {}", report.schema_version, buckets.join(", "))?;
            }
            Err(error) => {
                well = false;
                writeln!(text, "DOWN: {error}")?;
            }
        }
        rows.push(json!({
            "shard_id": shard.shard_id,
            "primary": shard.primary.to_string(),
            "replicas": replicas,
            "report": told.as_ref().ok(),
            "error": told.as_ref().err().map(ToString::to_string),
        }));
    }
    Ok(Report { text, json: json!({ "versions": versions, "shards": rows }), well })
}

async fn bootstrap(reach: &Reach, shards: &[NewShard]) -> Result<Report, Failure> {
    let login = reach.login(&reach.admin_user, "postgres-admin.password")?;
    let directory = Directory::new(reach.directory.clone(), login.clone(), TIMEOUT);
    let fingerprints = Fingerprints::of(
        &RoutingKey::new(read_key(&reach.secrets.join("routing.key"))?),
        &LookupKey::new(read_key(&reach.secrets.join("lookup.key"))?),
    );
    migrate_directory(&reach.directory, &login).await?;
    register_shards(&directory, shards).await?;
    migrate_shards(&directory).await?;
    assign_buckets(&directory, &fingerprints).await.map_err(|error| match error {
        BootstrapError::Key { .. } => Failure::WrongKey(error.to_string()),
        other => Failure::Unavailable(other.to_string()),
    })?;
    let text = format!("{} shards registered, every bucket placed\n", shards.len());
    Ok(Report { text, json: json!({ "shards": shards.len() }), well: true })
}

async fn map(reach: &Reach, bucket: Bucket) -> Result<Report, Failure> {
    let Some(placement) = reach.as_app()?.placement(bucket).await? else {
        return Err(Failure::Unavailable(format!("bucket {bucket} is not placed: bootstrap first")));
    };
    Ok(Report {
        text: format!("bucket {bucket}  shard {}  epoch {}\n", placement.shard, placement.epoch),
        json: json!({ "bucket": bucket.get(), "shard_id": placement.shard, "epoch": placement.epoch }),
        well: true,
    })
}

impl Reach {
    fn login(&self, user: &str, password_file: &str) -> Result<Login, Failure> {
        let path = self.secrets.join(password_file);
        let password =
            std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Login { user: user.to_owned(), password: password.trim_end().to_owned() })
    }

    fn as_app(&self) -> Result<Directory, Failure> {
        let login = self.login(&self.user, "postgres.password")?;
        Ok(Directory::new(self.directory.clone(), login, TIMEOUT))
    }
}

fn read_key(path: &Path) -> Result<[u8; 32], Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Failure::WrongKey(format!("{}: not 32 bytes of base64url", path.display())))
}

fn parse_address(text: &str) -> Result<Address, String> {
    let (server, dbname) = text.split_once('/').unwrap_or((text, "tessera"));
    let (host, port) = server.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let port = port.parse().map_err(|_| format!("{port} is no port"))?;
    if host.is_empty() || dbname.is_empty() {
        return Err("expected HOST:PORT or HOST:PORT/DATABASE".to_owned());
    }
    Ok(Address::new(host, port, dbname))
}

fn parse_shard(text: &str) -> Result<NewShard, String> {
    let (id, rest) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    let shard_id = id.parse().ok().and_then(ShardId::new).ok_or_else(|| format!("{id} is no shard id"))?;
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

fn parse_target(text: &str) -> Result<Bucket, String> {
    if let Ok(id) = text.parse::<UserId>() {
        return Ok(id.bucket());
    }
    text.parse()
        .ok()
        .and_then(Bucket::new)
        .ok_or_else(|| "neither a bucket (0–16383) nor a user id".to_owned())
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
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
