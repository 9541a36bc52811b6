//! PostgreSQL servers: made by `initdb` or `pg_basebackup`, configured, started and waited for. Settings are small but
//! durable: fsync and synchronous commit stay on, because what is tested here is that nothing acknowledged is lost.

pub(crate) mod admin;
mod config;

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::home::remove;
use crate::plan::Part;
use crate::process::{self, ProcessId};
use crate::site::Site;
use config::{Upstream, configuration};

/// The superuser, whose password is `postgres-admin.password`.
pub(crate) const ADMIN: &str = "postgres";
/// The nodes' role, whose password is `postgres.password`.
pub(crate) const APP: &str = "tessera_app";
/// The role that shards read from each other as while buckets move; its password is `postgres-stream.password`.
pub(crate) const STREAM: &str = "tessera_stream";
/// The database on every server.
pub(crate) const DATABASE: &str = "tessera";
/// The database that every server has from the beginning.
const MAINTENANCE: &str = "postgres";
/// In the data folder, for replicas and tools.
pub(crate) const PASSFILE: &str = "pgpass";
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// What a server is to be when it starts.
pub(crate) enum Role<'a> {
    /// Takes writes; these are the replicas it must know.
    Primary { replicas: &'a [Part] },
    /// Follows this server.
    Replica { of: &'a Part },
}

/// Writes the password file that replicas and tools read, as the servers' user.
pub(crate) fn write_passfile(site: &Site) -> Result<()> {
    let text = format!("127.0.0.1:*:*:{ADMIN}:{}\n", site.passwords.admin);
    write_owned(site, &site.home.data().join(PASSFILE), &text, 0o600)
}

/// Makes a primary's data with `initdb`, unless it is there.
pub(crate) async fn create_primary(site: &Site, part: &Part) -> Result<()> {
    if is_made(site, part)? {
        return Ok(());
    }
    let data = site.home.data_of(&part.name);
    let password_file = site.home.data().join(format!("{}.password", part.name));
    write_owned(site, &password_file, &site.passwords.admin, 0o600)?;
    let mut arguments =
        texts(&["--username", ADMIN, "--encoding", "UTF8", "--locale", "C", "--no-instructions"]);
    arguments.extend(texts(&["--auth-local", "scram-sha-256", "--auth-host", "scram-sha-256"]));
    arguments
        .extend([format!("--pwfile={}", password_file.display()), format!("--pgdata={}", data.display())]);
    let made = site.tool("initdb", &arguments).await;
    remove(&password_file)?;
    made?.expect(&format!("make the data of {}", part.name))?;
    let file = data.join("postgresql.conf");
    let text = std::fs::read_to_string(&file).could_not(format_args!("read {}", file.display()))?;
    write_owned(site, &file, &format!("{text}\ninclude '{}'\n", config::FILE), 0o600)?;
    let file = data.join("pg_hba.conf");
    let text = std::fs::read_to_string(&file).could_not(format_args!("read {}", file.display()))?;
    // Whoever may read a stream of what is moved may not copy the whole server.
    write_owned(site, &file, &format!("host replication {STREAM} all reject\n{text}"), 0o600)?;
    mark_made(site, part)
}

/// Makes a replica's data from its primary, unless it is there. Data that was a primary's once is made anew.
pub(crate) async fn create_replica(site: &Site, part: &Part, primary: &Part) -> Result<()> {
    let data = site.home.data_of(&part.name);
    if is_made(site, part)? && data.join("standby.signal").exists() {
        return Ok(());
    }
    remove(&marker(site, part))?;
    remove(&data)?;
    let mut arguments =
        texts(&["--host", "127.0.0.1", "--username", ADMIN, "--no-password", "--no-manifest"]);
    arguments.extend(texts(&["--wal-method", "stream", "--checkpoint", "fast"]));
    arguments.extend([format!("--port={}", primary.port), format!("--slot={}", config::slot(&part.name))]);
    arguments.push(format!("--pgdata={}", data.display()));
    let copied = site.tool("pg_basebackup", &arguments).await?;
    copied.expect(&format!("copy {} to {}", primary.name, part.name))?;
    write_owned(site, &data.join("standby.signal"), "", 0o600)?;
    mark_made(site, part)
}

/// Whether data was made for this part and can be a replica's as it is (it was never a primary).
fn is_made(site: &Site, part: &Part) -> Result<bool> {
    let data = site.home.data_of(&part.name);
    if !marker(site, part).exists() {
        remove(&data)?;
        return Ok(false);
    }
    let made_by = std::fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
    let (made_by, version) = (made_by.trim(), &site.servers.postgres_version);
    if version.split('.').next() != Some(made_by) {
        return Err(Error::new(format!(
            "the data of {} was made by PostgreSQL {made_by} and the server found is {version}: \
             use the same SERVERS= as then, or FRESH=1 to begin anew",
            part.name
        )));
    }
    Ok(true)
}

/// Starts the server in its role; `wait_ready` says when it answers.
pub(crate) fn start(site: &Site, part: &Part, role: &Role<'_>) -> Result<ProcessId> {
    let data = site.home.data_of(&part.name);
    configure(site, part, role)?;
    remove_stale_lock(&data)?;
    let program = site.servers.tool("postgres");
    site.launch(part, vec![program.display().to_string(), "-D".into(), data.display().to_string()])
}

/// A killed server leaves its lock file. It looks held as long as the dead process is not reaped, which nobody does
/// where process 1 is not an init (containers), so a lock of the dead is removed here.
fn remove_stale_lock(data: &Path) -> Result<()> {
    let lock = data.join("postmaster.pid");
    let text = std::fs::read_to_string(&lock).unwrap_or_default();
    let owner = text.lines().next().and_then(|line| line.trim().parse().ok());
    if owner.is_some_and(|pid| !process::runs(pid)) { remove(&lock) } else { Ok(()) }
}

/// Writes the part's settings; a running server reads them at a reload.
pub(crate) fn configure(site: &Site, part: &Part, role: &Role<'_>) -> Result<()> {
    let passfile = site.home.data().join(PASSFILE);
    let version = site.servers.postgres_major();
    let text = match role {
        Role::Primary { replicas } => configuration(part, version, replicas, None),
        Role::Replica { of } => {
            let upstream = Upstream { primary_port: of.port, passfile: &passfile };
            configuration(part, version, &[], Some(&upstream))
        }
    };
    write_owned(site, &site.home.data_of(&part.name).join(config::FILE), &text, 0o600)
}

/// Waits until the server answers SQL.
pub(crate) async fn wait_ready(site: &Site, part: &Part, process: &ProcessId) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if admin::answers(site, part.port).await {
            return Ok(());
        }
        if !process.is_alive() {
            return Err(site.did_not_start(&part.name, "ended at once"));
        }
        if Instant::now() >= deadline {
            return Err(site.did_not_start(&part.name, "did not answer in time"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the primary streams to all of these replicas.
pub(crate) async fn wait_streaming(site: &Site, primary: &Part, replicas: &[Part]) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let streaming = admin::streaming(site, primary.port).await.unwrap_or_default();
        let Some(missing) = replicas.iter().find(|replica| !streaming.contains(&replica.name)) else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            return Err(site.did_not_start(&missing.name, &format!("does not follow {}", primary.name)));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn marker(site: &Site, part: &Part) -> PathBuf {
    site.home.data().join(format!("{}.made", part.name))
}

/// Data without this mark was left half made and is thrown away.
fn mark_made(site: &Site, part: &Part) -> Result<()> {
    let marker = marker(site, part);
    std::fs::write(&marker, "").could_not(format_args!("write {}", marker.display()))
}

/// Writes a file that the servers' user owns.
pub(crate) fn write_owned(site: &Site, path: &Path, text: &str, mode: u32) -> Result<()> {
    let could_not = || format!("write {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .could_not(could_not())?;
    file.write_all(text.as_bytes()).could_not(could_not())?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).could_not(could_not())?;
    site.account.as_ref().map_or(Ok(()), |account| account.own(path))
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
