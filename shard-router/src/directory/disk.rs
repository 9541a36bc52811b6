//! The last good sections on disk, so that a node boots while the directory is down.
//!
//! One file a section: an envelope with the version, the content as a string, and that string's SHA-256.
//! Written to a temporary name, synced and renamed; a file that is newer than what we hold is left alone.

use super::section::{Section, Versioned};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    section: String,
    version: i64,
    sha256: String,
    content: String,
}

/// Why a copy cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there but is not what was written.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

fn path_of(dir: &Path, section: Section) -> PathBuf {
    dir.join(format!("directory-{}.json", section.name()))
}

/// Reads a copy; `None` if there is none.
pub(crate) fn load<T: DeserializeOwned>(
    dir: &Path,
    section: Section,
) -> Result<Option<Versioned<T>>, DiskError> {
    let path = path_of(dir, section);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiskError::Io { path, source }),
    };
    let damaged = |reason: String| DiskError::Damaged { path: path.clone(), reason };
    let envelope: Envelope = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if envelope.format != FORMAT || envelope.section != section.name() {
        return Err(damaged(format!("format {} of section {}", envelope.format, envelope.section)));
    }
    if envelope.sha256 != digest(envelope.version, &envelope.content) {
        return Err(damaged("the checksum differs".to_owned()));
    }
    let content = serde_json::from_str(&envelope.content).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(Versioned { version: envelope.version, content }))
}

/// Writes a copy unless the one on disk is newer; says whether it did.
pub(crate) fn save<T: Serialize>(
    dir: &Path,
    section: Section,
    held: &Versioned<T>,
) -> Result<bool, DiskError> {
    let path = path_of(dir, section);
    if version_on_disk(&path).is_some_and(|version| version > held.version) {
        return Ok(false);
    }
    let content = serde_json::to_string(&held.content).expect("plain data serialises");
    let envelope = Envelope {
        format: FORMAT,
        section: section.name().to_owned(),
        version: held.version,
        sha256: digest(held.version, &content),
        content,
    };
    let bytes = serde_json::to_vec(&envelope).expect("plain data serialises");
    write_atomically(dir, &path, &bytes).map_err(|source| DiskError::Io { path, source })?;
    Ok(true)
}

/// The version of a file that is whole; a damaged one may be overwritten.
fn version_on_disk(path: &Path) -> Option<i64> {
    let envelope: Envelope = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (envelope.sha256 == digest(envelope.version, &envelope.content)).then_some(envelope.version)
}

fn write_atomically(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("json.new");
    let mut file = fs::File::create(&temporary)?;
    restrict(&file)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(dir)?.sync_all()
}

/// Sealed keys are useless without the sealing key; still nobody else's business.
#[cfg(unix)]
fn restrict(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn restrict(_: &fs::File) -> io::Result<()> {
    Ok(())
}

fn digest(version: i64, content: &str) -> String {
    let hash = Sha256::new().chain_update(version.to_be_bytes()).chain_update(content).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn held(version: i64, text: &str) -> Versioned<String> {
        Versioned { version, content: text.to_owned() }
    }

    #[test]
    fn a_copy_comes_back_and_never_goes_backwards() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("made/on/demand");
        assert_eq!(load::<String>(&state, Section::Keys).unwrap(), None);
        assert!(save(&state, Section::Keys, &held(5, "five")).unwrap());
        assert!(!save(&state, Section::Keys, &held(4, "four")).unwrap());
        assert_eq!(load(&state, Section::Keys).unwrap(), Some(held(5, "five")));
        assert_eq!(load::<String>(&state, Section::Topology).unwrap(), None);
    }

    #[test]
    fn a_damaged_copy_is_refused_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), Section::Keys, &held(5, "five")).unwrap();
        let path = path_of(dir.path(), Section::Keys);
        for damage in ["five:fivf", "\"version\":5:\"version\":6", "{:"] {
            let (from, to) = damage.rsplit_once(if damage.starts_with('"') { ":\"" } else { ":" }).unwrap();
            let to = if damage.starts_with('"') { format!("\"{to}") } else { to.to_owned() };
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace(from, &to)).unwrap();
            assert!(
                matches!(load::<String>(dir.path(), Section::Keys), Err(DiskError::Damaged { .. })),
                "{damage}"
            );
            assert!(save(dir.path(), Section::Keys, &held(5, "five")).unwrap());
        }
    }
}
