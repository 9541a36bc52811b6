//! The folder of a cluster (`.tessera` in a checkout, a temporary one in tests): what lies where, and where the
//! servers' data goes when the user they run as cannot enter the checkout.

use std::fs::{DirBuilder, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::account::Account;
use crate::error::{Context, Error, Result};

const PRIVATE: u32 = 0o700;
const PASSABLE: u32 = 0o755;
const OUTSIDE: &str = "/var/tmp";

/// The paths below a cluster's folder.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The folder need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What runs: names, processes, ports.
    pub fn state_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// Held while the state file is read, changed and written.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.root.join("cluster.lock")
    }

    /// Which part is each shard's primary, once a promotion or a new shard changed that; outlives the processes as the
    /// data does.
    pub(crate) fn primaries_file(&self) -> PathBuf {
        self.root.join("primaries.json")
    }

    /// The node's secrets.
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// Everything that a part printed.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// The servers' data; a link where it had to go elsewhere.
    pub(crate) fn data(&self) -> PathBuf {
        let data = self.root.join("data");
        data.canonicalize().unwrap_or(data)
    }

    /// One server's data.
    pub(crate) fn data_of(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    /// A node's configuration file.
    pub fn node_config(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(format!("{name}.toml"))
    }

    /// A node's own folder.
    pub(crate) fn node_state(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }

    /// Creates the folders, and the data folder where `account` can enter it.
    pub(crate) fn prepare(&self, account: Option<&Account>) -> Result<()> {
        for folder in [self.root.clone(), self.root.join("logs"), self.root.join("nodes")] {
            create(&folder, PASSABLE)?;
        }
        create(&self.secrets(), PRIVATE)?;
        let data = place_for(&self.root, "data", account)?;
        if let Some(account) = account {
            account.own(&data)?;
        }
        Ok(())
    }

    /// Forgets data, secrets and logs; fetched servers stay.
    pub(crate) fn wipe(&self) -> Result<()> {
        let data = self.data();
        if let Ok(entries) = std::fs::read_dir(&data) {
            for entry in entries.flatten() {
                remove(&entry.path())?;
            }
        }
        for folder in [self.secrets(), self.root.join("nodes"), self.root.join("logs"), self.primaries_file()]
        {
            remove(&folder)?;
        }
        Ok(())
    }
}

impl Home {
    /// Removes everything, also what lies outside because the servers' user could not enter the folder.
    pub(crate) fn remove_all(&self) -> Result<()> {
        let data = self.data();
        if !self.root.canonicalize().is_ok_and(|root| data.starts_with(root)) && data.is_dir() {
            remove(data.parent().unwrap_or(&data))?;
        }
        remove(&self.root)
    }
}

/// Removes a file or a whole folder; that it is not there is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(format!("could not remove {}: {cause}", path.display())))
        }
        _ => Ok(()),
    }
}

/// A folder `name` of `root` that `account` can enter: the folder itself, or a link to one outside.
pub(crate) fn place_for(root: &Path, name: &str, account: Option<&Account>) -> Result<PathBuf> {
    let wanted = root.join(name);
    create(root, PASSABLE)?;
    let Some(account) = account else {
        create(&wanted, PASSABLE)?;
        return Ok(wanted);
    };
    if !wanted.exists() && !account.can_enter(root) {
        let outside = outside(root)?;
        let target = outside.join(name);
        create(&target, PASSABLE)?;
        remove(&wanted)?;
        symlink(&target, &wanted).could_not(format_args!(
            "link {} to {}",
            wanted.display(),
            target.display()
        ))?;
    }
    create(&wanted, PASSABLE)?;
    // What is inside is named by its real path: the link lies where the account cannot follow it.
    let real = wanted.canonicalize().could_not(format_args!("find {}", wanted.display()))?;
    if !account.can_enter(&real) {
        return Err(Error::new(format!("the user {} cannot enter {}", account.name, real.display())));
    }
    Ok(real)
}

/// `/var/tmp/tessera-<hash of the checkout's path>`, ours and nobody else's.
fn outside(root: &Path) -> Result<PathBuf> {
    let root = root.canonicalize().could_not(format_args!("find {}", root.display()))?;
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    let folder = Path::new(OUTSIDE).join(format!("tessera-{:016x}", hasher.finish()));
    create(&folder, PASSABLE)?;
    let metadata = folder.symlink_metadata().could_not(format_args!("look at {}", folder.display()))?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
        return Err(Error::new(format!("{} belongs to somebody else: remove it first", folder.display())));
    }
    Ok(folder)
}

fn create(folder: &Path, mode: u32) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let could_not = || format!("create {}", folder.display());
    DirBuilder::new().recursive(true).mode(mode).create(folder).could_not(could_not())?;
    // The umask may have taken bits away.
    std::fs::set_permissions(folder, Permissions::from_mode(mode)).could_not(could_not())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wipe_keeps_fetched_servers() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("t"));
        home.prepare(None).unwrap();
        std::fs::create_dir_all(home.data_of("directory")).unwrap();
        std::fs::create_dir_all(home.root().join("servers/x")).unwrap();
        home.wipe().unwrap();
        assert!(home.data().is_dir() && !home.data_of("directory").exists());
        assert!(!home.secrets().exists() && home.root().join("servers/x").is_dir());
    }

    #[test]
    fn secrets_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        home.prepare(None).unwrap();
        assert_eq!(home.secrets().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
