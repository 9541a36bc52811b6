//! What concerns the cluster as a whole: its first hour, one more shard, how it is doing.

use crate::reach::Reach;
use crate::{Failure, Report, render};
use serde_json::json;
use shard_key::Bucket;
use shard_router::ShardId;
use shard_router::directory::{BootstrapError, NewShard, assign_buckets, register_shards};
use shard_router::migrate::{migrate_directory, migrate_new_shard, migrate_shards};
use shard_router::moves::{Mover, MoverConfig};
use std::fmt::Write;
use std::sync::Arc;

pub async fn status(reach: &Reach) -> Result<Report, Failure> {
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
    let moves = moves(reach, &mut text).await?;
    Ok(Report { text, json: json!({ "versions": versions, "shards": rows, "moves": moves }), well })
}

/// Every open move, with how far it has come; without the owner's password only that there is one.
async fn moves(reach: &Reach, text: &mut String) -> Result<Vec<serde_json::Value>, Failure> {
    let directory = reach.as_admin().or_else(|_| reach.as_app())?;
    let mover = Mover::new(directory, MoverConfig::default(), Arc::new(()));
    let mut all = Vec::new();
    for record in mover.open_moves().await? {
        let progress = mover.progress(&record, render::now()).await.ok();
        text.push_str(&render::record(&record, progress.as_ref()));
        all.push(json!({ "move": record, "progress": progress }));
    }
    Ok(all)
}

pub async fn bootstrap(reach: &Reach, shards: &[NewShard]) -> Result<Report, Failure> {
    let (directory, fingerprints) = (reach.as_admin()?, reach.fingerprints()?);
    let login = reach.login(&reach.admin_user, "postgres-admin.password")?;
    migrate_directory(&reach.directory, &login).await?;
    register_shards(&directory, shards).await?;
    migrate_shards(&directory).await?;
    assign_buckets(&directory, &fingerprints).await.map_err(placement)?;
    let text = format!("{} shards registered, every bucket placed\n", shards.len());
    Ok(Report { text, json: json!({ "shards": shards.len() }), well: true })
}

/// Migrates an empty database, lists it, and tells it that it owns nothing yet.
pub async fn add_shard(reach: &Reach, shard: &NewShard) -> Result<Report, Failure> {
    let (directory, fingerprints) = (reach.as_admin()?, reach.fingerprints()?);
    let login = reach.login(&reach.admin_user, "postgres-admin.password")?;
    let id = shard.shard_id;
    migrate_directory(&reach.directory, &login).await?;
    // First the schema: a shard that is listed is one that nodes connect to.
    migrate_new_shard(&directory, id, &shard.primary).await?;
    register_shards(&directory, std::slice::from_ref(shard)).await?;
    assign_buckets(&directory, &fingerprints).await.map_err(placement)?;
    let text = format!(
        "shard {id} at {} is ready and owns nothing; `shardctl plan` says what it could take\n",
        shard.primary
    );
    Ok(Report { text, json: json!({ "shard_id": id, "primary": shard.primary.to_string() }), well: true })
}

pub async fn quarantine(reach: &Reach, shard: ShardId) -> Result<Report, Failure> {
    let buckets = shard_router::quarantine::quarantine(&reach.as_admin()?, shard).await?;
    let text = format!(
        "shard {shard} answers for nothing: {buckets} buckets taken from it until it is reconciled\n"
    );
    Ok(Report { text, json: json!({ "shard_id": shard, "buckets": buckets }), well: true })
}

pub async fn reconcile(reach: &Reach, shard: ShardId) -> Result<Report, Failure> {
    let found = shard_router::quarantine::reconcile(&reach.as_admin()?, shard).await?;
    let mut text = format!("shard {shard} serves {} buckets and redirects {}\n", found.active, found.moved);
    for (buckets, what) in [
        (
            &found.missing,
            "came to it after the moment that was restored: their rows are not here, and nobody serves them",
        ),
        (&found.contested, "are served by another shard, against the directory: look there first"),
    ] {
        if let (Some(first), Some(last)) = (buckets.first(), buckets.last()) {
            writeln!(text, "{} buckets from {first} to {last} {what}", buckets.len())?;
        }
    }
    let well = found.missing.is_empty() && found.contested.is_empty();
    Ok(Report { text, json: json!(found), well })
}

fn placement(error: BootstrapError) -> Failure {
    match error {
        BootstrapError::Key { .. } => Failure::WrongKey(error.to_string()),
        other => Failure::Unavailable(other.to_string()),
    }
}

pub async fn map(reach: &Reach, bucket: Bucket) -> Result<Report, Failure> {
    let Some(placement) = reach.as_app()?.placement(bucket).await? else {
        return Err(Failure::Unavailable(format!("bucket {bucket} is not placed: bootstrap first")));
    };
    Ok(Report {
        text: format!("bucket {bucket}  shard {}  epoch {}\n", placement.shard, placement.epoch),
        json: json!({ "bucket": bucket.get(), "shard_id": placement.shard, "epoch": placement.epoch }),
        well: true,
    })
}
