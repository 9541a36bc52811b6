//! Who the servers run as. PostgreSQL refuses root, so root steps down to `postgres` if that user exists, else to
//! `nobody`; anybody else runs the servers as themselves. Nodes always run as the caller: they read the secrets.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{User, geteuid};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// The user that root runs the servers as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name, for messages.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its main group.
    pub gid: u32,
}

/// `None`: run the servers as the caller.
pub(crate) fn for_servers() -> Result<Option<Account>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name).could_not(format_args!("look up the user {name}"))? {
            return Ok(Some(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
        }
    }
    Err(Error::new(
        "PostgreSQL refuses to run as root and there is neither a user postgres nor a user nobody",
    ))
}

impl Account {
    /// Makes a command run as this user. The standard library drops root's supplementary groups with it.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a file or folder to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid)).could_not(format_args!(
            "give {} to {}",
            path.display(),
            self.name
        ))
    }

    /// Whether this user can pass through `path` and every folder above it.
    pub(crate) fn can_enter(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        path.ancestors().all(|folder| folder.metadata().is_ok_and(|metadata| self.may_search(&metadata)))
    }

    fn may_search(&self, metadata: &Metadata) -> bool {
        search_allowed(metadata.permissions().mode(), metadata.uid() == self.uid, metadata.gid() == self.gid)
    }
}

fn search_allowed(mode: u32, owner: bool, group: bool) -> bool {
    let bit = if owner {
        0o100
    } else if group {
        0o010
    } else {
        0o001
    };
    mode & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        assert!(search_allowed(0o711, false, false));
        assert!(!search_allowed(0o700, false, false));
        assert!(search_allowed(0o700, true, false));
        assert!(!search_allowed(0o601, true, true));
        assert!(search_allowed(0o710, false, true));
    }
}
