//! `auth-node`: one stateless node of the login cluster, and the commands that an operator runs beside it.
//!
//! Exit codes: 0 done, 1 the command failed, 2 the configuration or the command line is wrong, 3 not now: nothing was
//! changed.
mod app;
mod background;
mod config;
mod controllers;
mod edge;
mod errors;
mod extract;
mod http_metrics;
mod keys_command;
mod limits;
mod log_writer;
mod metrics_reference;
mod middleware;
mod migrate_command;
mod openapi;
mod problem;
mod problem_page;
mod read_after;
mod routes;
mod secrets;
mod serve;
mod server;
mod telemetry;
mod time;
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use config::{Config, ConfigError};

#[derive(Parser)]
#[command(name = "auth-node", version, about = "A node of the Tessera login cluster")]
struct Cli {
    /// Configuration on top of the defaults (config/default.toml documents every key)
    #[arg(long, global = true, env = "TESSERA_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM, then drain
    Serve,
    /// Bring the schemas of the directory and of every shard up to date
    Migrate(migrate_command::MigrateArgs),
    /// Print the OpenAPI document of the public listener
    Openapi,
    /// The signing keys
    #[command(subcommand)]
    Keys(keys_command::KeysCommand),
}

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Refused(String),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = run(&cli);
    log_writer::flush();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("auth-node: {failure}");
            ExitCode::from(match failure {
                Failure::Failed(_) => 1,
                Failure::Config(_) => 2,
                Failure::Refused(_) => 3,
            })
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    if matches!(cli.command, Command::Openapi) {
        print!("{}", openapi::DOCUMENT.as_str());
        return Ok(());
    }
    let config = Config::load(cli.config.as_deref())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Failure::Failed(e.to_string()))?;
    runtime.block_on(async {
        match &cli.command {
            Command::Serve => serve::run(config).await,
            Command::Migrate(args) => migrate_command::run(&config, args).await,
            Command::Openapi => Ok(()),
            Command::Keys(command) => keys_command::run(&config, command).await,
        }
    })
}
