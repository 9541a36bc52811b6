//! `devcluster`: the local cluster from the command line. The Makefile's targets are thin over it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use devcluster::control::{self, Stop};
use devcluster::up::{home_at, say, table, up};
use devcluster::{
    ClusterSpec, Error, Home, Ports, Promotion, Result, ServerChoice, add_shard, promote, run_guard, state,
};

#[derive(Parser)]
#[command(about = "A whole Tessera cluster on one machine")]
struct Cli {
    /// The cluster's folder.
    #[arg(long, global = true, default_value = ".tessera")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the cluster and hold it until Ctrl-C.
    Up(Up),
    /// Stop it; its data stays.
    Down,
    /// Show its parts.
    Status,
    /// SIGKILL a part.
    Kill { name: String },
    /// SIGSTOP a part.
    Pause { name: String },
    /// SIGCONT a part.
    Resume { name: String },
    /// Start a part that was killed.
    Start { name: String },
    /// Make a replica its shard's primary.
    Promote {
        name: String,
        /// Though it may lack acknowledged writes; the shard answers for nothing until `shardctl reconcile`.
        #[arg(long)]
        force: bool,
    },
    /// Start one more shard, empty; `shardctl add-shard` then makes it known to the directory.
    AddShard,
    /// Print a part's log.
    Logs { name: String },
    /// End the cluster when standard input closes (for test clusters).
    #[command(hide = true)]
    Guard {
        /// Remove its folder, too.
        #[arg(long)]
        temporary: bool,
    },
}

#[derive(Args)]
struct Up {
    /// Return once it is ready.
    #[arg(long)]
    detach: bool,
    /// Wipe data, secrets and logs first.
    #[arg(long)]
    fresh: bool,
    /// Where PostgreSQL and Redis come from.
    #[arg(long, value_enum, default_value = "auto")]
    servers: ServerChoice,
    /// How many shards.
    #[arg(long, default_value_t = 3)]
    shards: u16,
    /// Replicas of each shard; from two on they are synchronous.
    #[arg(long, default_value_t = 1)]
    replicas: u16,
    /// How many auth nodes.
    #[arg(long, default_value_t = 2)]
    nodes: u16,
    /// PostgreSQL and Redis only, with empty databases.
    #[arg(long, conflicts_with = "nodes")]
    without_nodes: bool,
    /// Keep production's limits by address and by session.
    #[arg(long)]
    production_limits: bool,
    /// Any free ports instead of the fixed ones.
    #[arg(long)]
    free_ports: bool,
    /// Where fetched servers are kept (default: the cluster's folder).
    #[arg(long)]
    cache: Option<PathBuf>,
    /// The auth-node executable (default: the one beside this program).
    #[arg(long)]
    auth_node: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(cause) => Err(Error::new(format!("could not start: {cause}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("devcluster: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let home = home_at(&cli.dir)?;
    match cli.command {
        Command::Up(options) => start(&home, options).await,
        Command::Down => down(&home),
        Command::Status => {
            say(table(&state::require(&home)?).trim_end());
            Ok(())
        }
        Command::Kill { name } => control::kill(&home, &name),
        Command::Pause { name } => control::pause(&home, &name),
        Command::Resume { name } => control::resume(&home, &name),
        Command::Start { name } => control::start(&home, &name).await,
        Command::Promote { name, force } => {
            let how = if force { Promotion::Forced } else { Promotion::Lossless };
            say(format_args!("{} is the primary now", promote(&home, &name, how).await?));
            Ok(())
        }
        Command::AddShard => grow(&home).await,
        Command::Logs { name } => logs(&home, &name),
        Command::Guard { temporary } => run_guard(&home, temporary),
    }
}

async fn start(home: &Home, options: Up) -> Result<()> {
    let nodes = if options.without_nodes { 0 } else { options.nodes };
    let mut spec = ClusterSpec::default()
        .home(home.root())
        .ports(if options.free_ports { Ports::Free } else { Ports::Fixed })
        .servers(options.servers)
        .shards(options.shards)
        .replicas(options.replicas)
        .nodes(nodes)
        .fresh(options.fresh)
        .production_limits(options.production_limits)
        .progress(|line| say(line));
    if let Some(cache) = options.cache {
        spec = spec.cache(home_at(&cache)?.root());
    }
    if nodes > 0 {
        spec = spec.auth_node(options.auth_node.map_or_else(beside_us, Ok)?);
    }
    up(&spec, home, options.detach).await.map(|_| ())
}

/// Starts the shard and says how it becomes known.
async fn grow(home: &Home) -> Result<()> {
    let shard = add_shard(home).await?;
    let state = state::require(home)?;
    say(table(&state).trim_end());
    let primary = &state.primary(shard)?.part;
    let replicas = state.siblings(primary);
    let replicas: Vec<String> = replicas.iter().map(|part| format!("127.0.0.1:{}", part.port)).collect();
    let replicas =
        if replicas.is_empty() { String::new() } else { format!(",replicas={}", replicas.join(",")) };
    say(format_args!("\nshard {shard} runs; it is empty, and no node knows it before"));
    say(format_args!("shardctl add-shard {shard}=127.0.0.1:{}{replicas}", primary.port));
    Ok(())
}

fn beside_us() -> Result<PathBuf> {
    let own = std::env::current_exe()
        .map_err(|cause| Error::new(format!("could not find this program: {cause}")))?;
    let program = own.with_file_name("auth-node");
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::new(format!(
        "{} is not built: make up builds it, and --auth-node names another",
        program.display()
    )))
}

fn down(home: &Home) -> Result<()> {
    if state::read(home)?.is_none() {
        say("nothing runs");
        return Ok(());
    }
    control::stop_all(home, Stop::Gently)?;
    say("stopped");
    Ok(())
}

fn logs(home: &Home, name: &str) -> Result<()> {
    if name != "migrate" {
        state::read(home)?.map_or(Ok(()), |state| state.part(name).map(|_| ()))?;
    }
    let file = home.log(name);
    let text = std::fs::read(&file)
        .map_err(|cause| Error::new(format!("could not read {}: {cause}", file.display())))?;
    std::io::Write::write_all(&mut std::io::stdout(), &text)
        .map_err(|cause| Error::new(format!("could not write: {cause}")))
}
