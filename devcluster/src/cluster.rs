//! A cluster in the hands of a test or a bench: started from a spec, hurt by name, gone when dropped.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::control::{self, Stop};
use crate::error::{Context, Error, Result};
use crate::grow;
use crate::guard::{self, Guard};
use crate::home::Home;
use crate::launch::{prepare, start_all};
use crate::plan::{Kind, Part};
use crate::ports::PortBlock;
use crate::postgres::{ADMIN, APP, DATABASE};
use crate::process::ProcessId;
use crate::promote::{self, Promotion};
use crate::secrets::passwords;
use crate::spec::ClusterSpec;
use crate::state::{self, State};
use crate::{node, redis};

/// A running cluster. Dropping it stops every part; a guard process does so if we cannot.
pub struct Cluster {
    home: Home,
    stop: Stop,
    /// False while the cluster that runs in this folder is somebody else's.
    ours: bool,
    guard: Option<Guard>,
    folder: Option<TempDir>,
    block: Option<PortBlock>,
}

/// A node as a test sees it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its public address, `http://127.0.0.1:3002`.
    pub url: String,
    /// Its ops address.
    pub ops_url: String,
    /// Its process id, while it runs.
    pub pid: Option<i32>,
}

impl ClusterSpec {
    /// Starts the cluster and waits until every part is ready.
    pub async fn start(self) -> Result<Cluster> {
        let folder = if self.home.is_none() { Some(temporary_folder()?) } else { None };
        let root = match (&self.home, &folder) {
            (Some(home), _) => home.clone(),
            (None, Some(folder)) => folder.path().to_path_buf(),
            (None, None) => return Err(Error::new("a cluster needs a folder")),
        };
        std::fs::create_dir_all(&root).could_not(format_args!("create {}", root.display()))?;
        let home = Home::new(root.canonicalize().could_not(format_args!("find {}", root.display()))?);
        let mut spec = self;
        spec.cache = spec.cache.or_else(checkout_cache);
        let stop = if folder.is_some() { Stop::Sharply } else { Stop::Gently };
        let mut cluster = Cluster { home: home.clone(), stop, ours: true, guard: None, folder, block: None };
        let (prepared, spec) = tokio::task::spawn_blocking(move || (prepare(&spec, &home), spec))
            .await
            .could_not("prepare the cluster")?;
        let Ok(prepared) = prepared? else {
            cluster.ours = false;
            return Err(Error::new(format!("a cluster already runs from {}", cluster.home.root().display())));
        };
        cluster.guard = start_guard(&spec, &cluster.home, cluster.folder.is_some())?;
        start_all(&spec, &prepared).await?;
        cluster.block = prepared.started();
        Ok(cluster)
    }
}

impl Cluster {
    /// What runs, as it is now.
    pub fn state(&self) -> Result<State> {
        state::require(&self.home)
    }

    /// The cluster's folder: logs, secrets, configuration files.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// A node, counted from 1.
    pub fn node(&self, number: u16) -> Result<Node> {
        let state = self.state()?;
        let found = state.part(&Kind::Node { number }.name())?;
        let Part { name, port, second_port, .. } = found.part.clone();
        let pid = found.process.as_ref().filter(|process| process.is_alive()).map(|process| process.pid);
        Ok(Node { name, url: node::url(port), ops_url: node::url(second_port.unwrap_or_default()), pid })
    }

    /// A node's public address.
    pub fn node_url(&self, number: u16) -> Result<String> {
        Ok(self.node(number)?.url)
    }

    /// A node's ops address.
    pub fn ops_url(&self, number: u16) -> Result<String> {
        Ok(self.node(number)?.ops_url)
    }

    /// The port of any part.
    pub fn port(&self, name: &str) -> Result<u16> {
        Ok(self.state()?.part(name)?.part.port)
    }

    /// A port for a server that the caller starts beside this cluster: another one at each call, none of which is given
    /// to anybody else while the cluster lives.
    pub fn spare_port(&self) -> Result<u16> {
        let port = self.block.as_ref().and_then(PortBlock::spare);
        port.ok_or_else(|| {
            Error::new("a cluster on fixed ports, or one that gave them all, has no spare port")
        })
    }

    /// The process of any part, while it runs.
    pub fn process(&self, name: &str) -> Result<Option<ProcessId>> {
        Ok(self.state()?.part(name)?.process.clone().filter(ProcessId::is_alive))
    }

    /// The superuser's URL of a shard's present primary.
    pub fn shard_primary_dsn(&self, shard: u16) -> Result<String> {
        let port = self.state()?.primary(shard)?.part.port;
        Ok(dsn(ADMIN, &passwords(&self.home.secrets())?.admin, port))
    }

    /// The superuser's URL of the directory.
    pub fn directory_dsn(&self) -> Result<String> {
        self.dsn(&Kind::Directory.name())
    }

    /// The superuser's URL of any PostgreSQL part.
    pub fn dsn(&self, name: &str) -> Result<String> {
        Ok(dsn(ADMIN, &passwords(&self.home.secrets())?.admin, self.port(name)?))
    }

    /// The nodes' own URL (`tessera_app`) of any PostgreSQL part.
    pub fn app_dsn(&self, name: &str) -> Result<String> {
        Ok(dsn(APP, &passwords(&self.home.secrets())?.app, self.port(name)?))
    }

    /// `127.0.0.1:7600` and the others.
    pub fn redis_addrs(&self) -> Result<Vec<String>> {
        Ok(self.redis_parts()?.iter().map(|part| format!("127.0.0.1:{}", part.port)).collect())
    }

    /// SIGKILL to every process of a part; it is gone when this returns.
    pub async fn kill(&self, name: &str) -> Result<()> {
        control::kill(&self.home, name)
    }

    /// Starts a killed part and waits until it answers.
    pub async fn start(&self, name: &str) -> Result<()> {
        control::start(&self.home, name).await
    }

    /// SIGSTOP to every process of a part.
    pub async fn pause(&self, name: &str) -> Result<()> {
        control::pause(&self.home, name)
    }

    /// SIGCONT to every process of a part.
    pub async fn resume(&self, name: &str) -> Result<()> {
        control::resume(&self.home, name)
    }

    /// Makes a replica its shard's primary; the name of the one that became it.
    pub async fn promote(&self, name: &str) -> Result<String> {
        promote::promote(&self.home, name, Promotion::Lossless).await
    }

    /// The same, whatever the replica lacks: its shard is in quarantine afterwards.
    pub async fn promote_by_force(&self, name: &str) -> Result<String> {
        promote::promote(&self.home, name, Promotion::Forced).await
    }

    /// Starts one more shard, empty and unknown to the directory; its number.
    pub async fn add_shard(&self) -> Result<u16> {
        grow::add_shard(&self.home).await
    }

    /// Empties all of Redis.
    pub async fn redis_flush_all(&self) -> Result<()> {
        redis::flush_all(&self.redis_parts()?).await
    }

    /// All that a part printed.
    pub fn logs(&self, name: &str) -> Result<String> {
        self.state()?.part(name)?;
        let bytes = std::fs::read(self.home.log(name)).could_not(format_args!("read the log of {name}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Stops every part in good order: nodes drain first.
    pub async fn stop(self) -> Result<()> {
        let home = self.home.clone();
        let stopped = tokio::task::spawn_blocking(move || control::stop_all(&home, Stop::Gently));
        stopped.await.could_not("stop the cluster")?
    }

    /// The Redis server that is the master of a key now.
    pub async fn redis_master_of(&self, key: &str) -> Result<String> {
        redis::master_of(&self.redis_parts()?, key).await
    }

    fn redis_parts(&self) -> Result<Vec<Part>> {
        let parts = self.state()?.parts.into_iter().map(|part| part.part);
        Ok(parts.filter(|part| matches!(part.kind, Kind::Redis { .. })).collect())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let stopped = control::stop_all(&self.home, self.stop);
        let removed = if self.folder.is_some() { self.home.remove_all() } else { Ok(()) };
        if let Err(problem) = stopped.and(removed) {
            eprintln!("devcluster: {problem}");
        }
    }
}

fn dsn(user: &str, password: &str, port: u16) -> String {
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{DATABASE}")
}

/// The servers' user must be able to pass through it.
fn temporary_folder() -> Result<TempDir> {
    let passable = Permissions::from_mode(0o711);
    tempfile::Builder::new()
        .prefix("tessera-")
        .permissions(passable)
        .tempdir()
        .could_not("create a temporary folder")
}

/// `.tessera` of the checkout around the current folder, for servers that were fetched before.
fn checkout_cache() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let root = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file())?;
    Some(root.join(".tessera"))
}

fn start_guard(spec: &ClusterSpec, home: &Home, temporary: bool) -> Result<Option<Guard>> {
    let Some(program) = spec.guard.clone().or_else(guard::find_program) else {
        eprintln!(
            "devcluster: no guard: if this process is killed, its servers stay (cargo build -p devcluster makes one)"
        );
        return Ok(None);
    };
    Guard::start(Path::new(&program), home, temporary).map(Some)
}
