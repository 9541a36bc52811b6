//! `.tessera/cluster.json`: what was started, so that any other process can look at it, hurt it and stop it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::error::{Context, Error, Result};
use crate::home::Home;
use crate::plan::Part;
use crate::process::ProcessId;
use crate::servers::Servers;
use crate::spec::Ports;

/// The whole cluster as it was last seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The executables.
    pub servers: Servers,
    /// Who the servers run as, if not as the caller.
    pub account: Option<Account>,
    /// Replicas of each shard; two or more are synchronous.
    pub replicas: u16,
    /// How its ports were chosen.
    #[serde(default)]
    pub ports: Ports,
    /// The nodes' executable.
    pub auth_node: Option<PathBuf>,
    /// Which part is each shard's primary.
    pub primaries: BTreeMap<u16, String>,
    /// Somebody is stopping it: parts that end are no news.
    #[serde(default)]
    pub stopping: bool,
    /// Every part, in the order it is shown.
    pub parts: Vec<PartState>,
}

/// One part and the process that it runs as.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartState {
    /// Name and ports.
    #[serde(flatten)]
    pub part: Part,
    /// The command line it was last started with.
    pub argv: Vec<String>,
    /// Its process; none if it was killed or never started.
    pub process: Option<ProcessId>,
}

impl PartState {
    /// Whether its process runs (paused or not).
    pub fn is_alive(&self) -> bool {
        self.process.as_ref().is_some_and(ProcessId::is_alive)
    }

    /// Whether its process is stopped by SIGSTOP.
    pub fn is_paused(&self) -> bool {
        self.process.as_ref().is_some_and(ProcessId::is_paused)
    }
}

impl State {
    /// The part of that name, or a sentence that lists the names there are.
    pub fn part(&self, name: &str) -> Result<&PartState> {
        self.parts.iter().find(|state| state.part.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.parts.iter().map(|state| state.part.name.as_str()).collect();
            Error::new(format!("there is no part {name:?}; there are {}", names.join(", ")))
        })
    }

    /// The part of that name, to be changed.
    pub(crate) fn part_mut(&mut self, name: &str) -> Result<&mut PartState> {
        self.part(name)?;
        let found = self.parts.iter_mut().find(|state| state.part.name == name);
        found.ok_or_else(|| Error::new(format!("there is no part {name:?}")))
    }

    /// The primary of a shard.
    pub fn primary(&self, shard: u16) -> Result<&PartState> {
        let name =
            self.primaries.get(&shard).ok_or_else(|| Error::new(format!("there is no shard {shard}")))?;
        self.part(name)
    }

    /// Whether this part takes writes: the directory, and each shard's primary.
    pub fn is_primary(&self, part: &Part) -> bool {
        match part.kind.shard() {
            Some(shard) => self.primaries.get(&shard).is_some_and(|name| *name == part.name),
            None => part.kind.is_postgres(),
        }
    }

    /// The other servers of the part's shard: its primary if it is a replica, its replicas if it is the primary.
    pub fn siblings(&self, part: &Part) -> Vec<Part> {
        let shard = part.kind.shard();
        let same = self.parts.iter().map(|state| &state.part).filter(|p| p.kind.shard() == shard);
        same.filter(|other| shard.is_some() && other.name != part.name).cloned().collect()
    }

    /// Whether anything of it still runs.
    pub fn any_alive(&self) -> bool {
        self.parts.iter().any(PartState::is_alive)
    }
}

/// Reads the state; `None` if there is no cluster.
pub fn read(home: &Home) -> Result<Option<State>> {
    read_json(&home.state_file())
}

/// Reads the state of a cluster that must be there.
pub fn require(home: &Home) -> Result<State> {
    read(home)?.ok_or_else(|| {
        Error::new(format!("no cluster runs from {}: start one with make up", home.root().display()))
    })
}

/// Writes a whole new state.
pub(crate) fn write(home: &Home, state: &State) -> Result<()> {
    let _held = lock(home)?;
    write_json(&home.state_file(), state)
}

/// Reads, changes and writes the state; other processes wait meanwhile.
pub(crate) fn update(home: &Home, change: impl FnOnce(&mut State) -> Result<()>) -> Result<State> {
    let _held = lock(home)?;
    let mut state = require(home)?;
    change(&mut state)?;
    write_json(&home.state_file(), &state)?;
    Ok(state)
}

/// Records a part's new process, or that it has none.
pub(crate) fn set_process(
    home: &Home,
    name: &str,
    process: Option<ProcessId>,
    argv: Option<Vec<String>>,
) -> Result<()> {
    update(home, |state| {
        let part = state.part_mut(name)?;
        part.process = process;
        part.argv = argv.unwrap_or_else(|| std::mem::take(&mut part.argv));
        Ok(())
    })?;
    Ok(())
}

/// The shards of this data and each one's primary, as far as `add-shard` or a promotion made them other than planned.
pub(crate) fn kept_primaries(home: &Home) -> Result<BTreeMap<u16, String>> {
    Ok(read_json(&home.primaries_file())?.unwrap_or_default())
}

/// Remembers the primaries beside the data.
pub(crate) fn keep_primaries(home: &Home, primaries: &BTreeMap<u16, String>) -> Result<()> {
    write_json(&home.primaries_file(), primaries)
}

fn lock(home: &Home) -> Result<File> {
    let path = home.lock_file();
    let file = File::create(&path).could_not(format_args!("create {}", path.display()))?;
    file.lock().could_not(format_args!("lock {}", path.display()))?;
    Ok(file)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).could_not(format_args!("understand {}", path.display()))
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause).could_not(format_args!("read {}", path.display())),
    }
}

/// Readers never see half a file.
fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let could_not = || format!("write {}", path.display());
    let scratch = path.with_extension("json.new");
    let bytes = serde_json::to_vec_pretty(value).could_not(could_not())?;
    std::fs::write(&scratch, bytes).could_not(could_not())?;
    std::fs::rename(&scratch, path).could_not(could_not())
}
