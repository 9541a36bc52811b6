//! `make figures` and its like: what one good answer of each call costs the server, in CPU and WAL, on a cluster of its own.
//!
//! Requests per second on a shared machine are noise; the CPU that an answer costs holds still. It is read from the
//! kernel's accounting of every process, less what the same processes use while nobody asks. Linux only.
mod alone;
mod bench;
mod calls;
mod client;
mod floor;
mod meter;
mod ownership;
mod ownership_report;
mod report;
mod run;
mod shards;
mod shards_report;
mod statements;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Whatever went wrong, in words.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "Server CPU and WAL per good answer")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a cluster of this auth-node, and the floors
    Run(Options),
    /// Measure what the ownership check of a write costs at durable commit
    Ownership(ownership::Options),
    /// Measure whether a request's cost depends on the number of shards
    Shards(shards::Options),
    /// Serve the floors on a free port, which is printed
    Floor,
}

/// What to measure, and how often.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    subject: report::Subject,
    /// Rounds, of which the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests a round of calls that need nothing prepared
    #[arg(long, default_value_t = 4000)]
    requests: usize,
    /// Only calls whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Leave out the pass that counts WAL syncs (it waits 11 s a call for PostgreSQL's statistics)
    #[arg(long)]
    no_syncs: bool,
}

fn main() -> ExitCode {
    let done = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match Cli::parse().command {
                Command::Run(options) => run::run(&options).await,
                Command::Ownership(options) => ownership::run(&options).await,
                Command::Shards(options) => shards::run(&options).await,
                Command::Floor => floor::serve().await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("figures: {problem}");
            ExitCode::FAILURE
        }
    }
}
