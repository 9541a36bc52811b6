//! `shardctl`: what an operator asks of the shards, their first hour, and moves between them.

mod cluster;
mod controller;
mod moves;
mod reach;
mod render;

use clap::{Parser, Subcommand};
use reach::{Reach, parse_range, parse_shard, parse_shard_id, parse_target};
use serde_json::Value;
use shard_key::Bucket;
use shard_router::ShardId;
use shard_router::directory::{BootstrapError, NewShard};
use shard_router::migrate::MigrateError;
use shard_router::moves::{BucketRange, MoveError};
use std::process::ExitCode;

const EXIT_CODES: &str = "Exit codes:
  0  done, and all is well
  1  something cannot be reached, or a shard is not as it should be
  2  wrong usage, or a permanent key is not the one that the data was written with
  3  refused: the verb does not fit the move's state, or the shards are not fit for it; nothing has changed
  4  gave up in time: what was begun is undone, and may be tried again
  5  the copies differ
  6  another mover is at work on it, or it is paused";

/// Looks at shards, sets a cluster up, and moves buckets between its shards.
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

#[derive(Subcommand)]
enum Command {
    /// Versions of the directory, each shard's schema and buckets, and every open move.
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
    /// Makes an empty database one more shard. It owns nothing until something moves there.
    AddShard {
        /// ID=HOST:PORT[,replicas=HOST:PORT,HOST:PORT…]
        #[arg(value_parser = parse_shard)]
        shard: NewShard,
    },
    /// Says which ranges should move so that every shard has its share; with --write, writes them down.
    Plan(moves::PlanArgs),
    /// Plans to move everything off a shard; with --write, writes it down.
    DrainShard {
        /// Which.
        #[arg(value_parser = parse_shard_id)]
        shard: ShardId,
        #[command(flatten)]
        plan: moves::PlanArgs,
    },
    /// Moves a range, or carries on a move that stands still, until it soaks.
    Move {
        /// LO-HI, both included.
        #[arg(value_parser = parse_range, required_unless_present = "id", conflicts_with = "id")]
        range: Option<BucketRange>,
        /// Who is to have it.
        #[arg(long, value_parser = parse_shard_id, required_unless_present = "id")]
        to: Option<ShardId>,
        /// A move that was written down before.
        #[arg(long)]
        id: Option<i64>,
        #[command(flatten)]
        drill: moves::Drill,
    },
    /// The latest moves, ended ones too.
    Moves {
        /// How many.
        #[arg(long, default_value_t = 20)]
        count: i64,
    },
    /// Makes a move wait before its next window.
    Pause { id: i64 },
    /// Lets a paused move go on; whoever runs moves takes it up.
    Resume { id: i64 },
    /// Gives up a move that has not been decided.
    Abort { id: i64 },
    /// Hands a soaking range back, with everything written since.
    Rollback {
        id: i64,
        #[command(flatten)]
        drill: moves::Drill,
    },
    /// Compares both copies of a soaking range, under load.
    Verify { id: i64 },
    /// Ends a soak: deletes the source's copy. There is no way back afterwards.
    Clean {
        id: i64,
        /// How long it must have soaked, in hours.
        #[arg(long, default_value_t = 24.0)]
        soaked_h: f64,
    },
    /// Ends windows that nobody is at work on, and finishes what has been decided.
    Recover,
    /// Makes a shard answer for nothing: after a restore to a point in time or a forced promotion, before nodes reach it.
    Quarantine {
        #[arg(value_parser = parse_shard_id)]
        shard: ShardId,
    },
    /// Ends a quarantine: the shard serves what the directory gives it and what it has.
    Reconcile {
        #[arg(value_parser = parse_shard_id)]
        shard: ShardId,
    },
    /// Runs planned moves by itself, recovers, and cleans what has soaked, until it is told to stop.
    Controller(controller::ControllerArgs),
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
    Move(MoveError),
}

impl From<MoveError> for Failure {
    fn from(error: MoveError) -> Self {
        Self::Move(error)
    }
}

macro_rules! unavailable {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Unavailable(error.to_string())
            }
        }
    )*};
}
unavailable!(String, std::io::Error, std::fmt::Error, sqlx::Error, BootstrapError, MigrateError);

impl Failure {
    fn told(&self) -> (String, u8) {
        match self {
            Self::Unavailable(reason) => (reason.clone(), 1),
            Self::WrongKey(reason) => (reason.clone(), 2),
            Self::Move(error) => {
                let code = match error {
                    MoveError::Database { .. } => 1,
                    MoveError::NotReady(_) | MoveError::WrongState(_) | MoveError::BadRange(_) => 3,
                    MoveError::GaveUp(_) | MoveError::Stopped(_) => 4,
                    MoveError::Differs(_) => 5,
                    MoveError::Superseded(_) => 6,
                };
                (error.to_string(), code)
            }
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = run(&cli).await;
    match outcome {
        Ok(report) => {
            if cli.json {
                println!("{}", report.json);
            } else {
                print!("{}", report.text);
            }
            ExitCode::from(u8::from(!report.well))
        }
        Err(failure) => {
            let (reason, code) = failure.told();
            eprintln!("shardctl: {reason}");
            ExitCode::from(code)
        }
    }
}

async fn run(cli: &Cli) -> Result<Report, Failure> {
    let (reach, json) = (&cli.reach, cli.json);
    match &cli.command {
        Command::Status => cluster::status(reach).await,
        Command::Bootstrap { shards } => cluster::bootstrap(reach, shards).await,
        Command::Map { target } => cluster::map(reach, *target).await,
        Command::AddShard { shard } => cluster::add_shard(reach, shard).await,
        Command::Plan(plan) => moves::plan(reach, plan, None).await,
        Command::DrainShard { shard, plan } => moves::plan(reach, plan, Some(*shard)).await,
        Command::Move { range, to, id, drill } => moves::go(reach, json, (*range, *to, *id), drill).await,
        Command::Moves { count } => moves::list(reach, *count).await,
        Command::Pause { id } => moves::pause(reach, *id, true).await,
        Command::Resume { id } => moves::pause(reach, *id, false).await,
        Command::Abort { id } => moves::abort(reach, json, *id).await,
        Command::Rollback { id, drill } => moves::rollback(reach, json, *id, drill).await,
        Command::Verify { id } => moves::verify(reach, *id).await,
        Command::Clean { id, soaked_h } => moves::clean(reach, json, *id, *soaked_h).await,
        Command::Recover => moves::recover(reach).await,
        Command::Quarantine { shard } => cluster::quarantine(reach, *shard).await,
        Command::Reconcile { shard } => cluster::reconcile(reach, *shard).await,
        Command::Controller(limits) => controller::run(reach, json, limits).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
