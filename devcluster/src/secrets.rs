//! The secrets of a local cluster, made once from the system's randomness: files in the format that nodes read
//! (NAMES, Configuration). What exists is kept: routing and lookup keys are permanent once there is data.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::{Context, Result};

const KEY_BYTES: usize = 32;
const PASSWORD_BYTES: usize = 18;
const PERMANENT: [&str; 2] = ["routing.key", "lookup.key"];
const RINGS: [&str; 3] = ["seal.keys", "refresh.keys", "pepper.keys"];
const APP_PASSWORD: &str = "postgres.password";
const ADMIN_PASSWORD: &str = "postgres-admin.password";
const STREAM_PASSWORD: &str = "postgres-stream.password";

/// The passwords that servers are set up with.
#[derive(Clone)]
pub(crate) struct Passwords {
    pub app: String,
    pub admin: String,
    pub stream: String,
}

/// Creates whatever is missing in `folder`.
pub(crate) fn create_missing(folder: &Path) -> Result<()> {
    for name in PERMANENT {
        write_new(&folder.join(name), &format!("{}\n", random_text(KEY_BYTES)?))?;
    }
    for name in RINGS {
        write_new(&folder.join(name), &format!("1 {}\n", random_text(KEY_BYTES)?))?;
    }
    for name in [APP_PASSWORD, ADMIN_PASSWORD, STREAM_PASSWORD] {
        write_new(&folder.join(name), &format!("{}\n", random_text(PASSWORD_BYTES)?))?;
    }
    Ok(())
}

/// Reads the passwords back.
pub(crate) fn passwords(folder: &Path) -> Result<Passwords> {
    let read = |name: &str| {
        let text =
            std::fs::read_to_string(folder.join(name)).could_not(format_args!("read the secret {name}"))?;
        Ok(text.trim().to_owned())
    };
    Ok(Passwords { app: read(APP_PASSWORD)?, admin: read(ADMIN_PASSWORD)?, stream: read(STREAM_PASSWORD)? })
}

/// URL-safe random text of `bytes` bytes of entropy.
fn random_text(bytes: usize) -> Result<String> {
    let mut raw = vec![0; bytes];
    SysRng.try_fill_bytes(&mut raw).could_not("read the system's randomness")?;
    Ok(URL_SAFE_NO_PAD.encode(raw))
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file {
        Ok(mut file) => file.write_all(text.as_bytes()).could_not(format_args!("write {}", path.display())),
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(cause).could_not(format_args!("create {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_have_the_agreed_form_and_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        create_missing(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let first = read("routing.key");
        assert_eq!(URL_SAFE_NO_PAD.decode(first.trim()).unwrap().len(), KEY_BYTES);
        let (id, key) =
            read("seal.keys").trim().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!((id.as_str(), URL_SAFE_NO_PAD.decode(key).unwrap().len()), ("1", KEY_BYTES));
        let mode = folder.path().join("pepper.keys").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        create_missing(folder.path()).unwrap();
        assert_eq!(read("routing.key"), first);
        let passwords = passwords(folder.path()).unwrap();
        assert_ne!(passwords.app, passwords.admin);
        assert_ne!(passwords.stream, passwords.admin);
    }
}
