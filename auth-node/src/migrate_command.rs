//! `auth-node migrate`: the directory first, then the shards that it lists, a canary before all others. Safe to run again
//! at any time. docs/operations/migrations.md says when which stage.
use std::time::Duration;

use auth_store::BACKFILLS;
use clap::{Args, ValueEnum};
use shard_router::directory::Directory;
use shard_router::migrate::{MigrateError, Pace, Rollout, Stage, migrate_directory};
use shard_router::{Login, ShardId};

use crate::config::Config;
use crate::{Failure, app, secrets};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct MigrateArgs {
    /// How far to go
    #[arg(value_enum, default_value_t = Step::Expand)]
    step: Step,
    /// The shard that goes first; by default the one of the least weight
    #[arg(long, value_parser = shard)]
    canary: Option<ShardId>,
    /// Stop after the canary; the next run goes on with the others
    #[arg(long)]
    canary_only: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Step {
    /// What only adds: before nodes of a new release start
    Expand,
    /// Rewrite rows that exist, while everybody serves
    Backfill,
    /// Also what takes away: after the last node of the old release has stopped
    Contract,
}

fn shard(text: &str) -> Result<ShardId, String> {
    let number = text.parse().ok().and_then(ShardId::new);
    number.ok_or_else(|| "a shard has a number from 1".to_owned())
}

pub async fn run(config: &Config, args: &MigrateArgs) -> Result<(), Failure> {
    let password = secrets::password(&config.secrets.dir, "postgres-admin.password")?;
    let login = Login { user: config.postgres.admin_user.clone(), password };
    let address = app::directory_address(config);
    migrate_directory(&address, &login).await.map_err(failed)?;
    println!("directory: up to date");
    let directory = Directory::new(address, login, TIMEOUT);
    match args.step {
        Step::Expand => roll_out(&directory, args, Stage::Expand).await,
        Step::Backfill => backfill(&directory).await,
        Step::Contract => roll_out(&directory, args, Stage::Contract).await,
    }
}

async fn roll_out(directory: &Directory, args: &MigrateArgs, stage: Stage) -> Result<(), Failure> {
    let rollout = Rollout {
        stage,
        canary: args.canary,
        canary_only: args.canary_only,
        backfills: BACKFILLS.to_vec(),
        ..Rollout::default()
    };
    let rolled = rollout.run(directory).await.map_err(failed)?;
    for shard in rolled.shards {
        println!("shard {}: up to date at migration {}", shard.shard_id, shard.version);
    }
    for shard in rolled.waiting {
        println!("shard {shard}: waits for the next run");
    }
    Ok(())
}

async fn backfill(directory: &Directory) -> Result<(), Failure> {
    for backfill in BACKFILLS {
        let done = backfill.run(directory, Pace::default()).await.map_err(failed)?;
        println!("backfill {}: {} rows rewritten, {} buckets left", backfill.name, done.changed, done.left);
        if done.left > 0 {
            let why = format!("backfill {}: some buckets change hands just now; run again", backfill.name);
            return Err(Failure::Failed(why));
        }
    }
    Ok(())
}

fn failed(error: MigrateError) -> Failure {
    match error {
        MigrateError::Refused(_) => Failure::Refused(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    }
}
