//! The secret files of `secrets.dir`. An error names the file and the reason, never the content.
use std::path::Path;

use auth_core::crypto::mac;
use auth_core::crypto::ring::{SecretRing, parse_key32};
use auth_core::services::{IdentifierKeys, OnceKeys};
use shard_key::{LookupKey, RoutingKey};
use shard_router::directory::Fingerprints;

use crate::config::ConfigError;

/// Everything that a serving node opens.
pub struct SecretFiles {
    pub identifiers: IdentifierKeys,
    pub fingerprints: Fingerprints,
    pub once: OnceKeys,
    pub seal: SecretRing,
    pub refresh: SecretRing,
    pub pepper: SecretRing,
}

impl SecretFiles {
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let routing = RoutingKey::new(key(dir, "routing.key")?);
        let lookup_bytes = key(dir, "lookup.key")?;
        let lookup = LookupKey::new(lookup_bytes);
        if routing.is_same_secret_as(&lookup) {
            return Err(ConfigError("secrets.dir: routing.key and lookup.key must differ".into()));
        }
        Ok(Self {
            fingerprints: Fingerprints::of(&routing, &lookup),
            once: OnceKeys::new(mac::mac(&lookup_bytes, &[b"tessera idempotency keys v1"])),
            identifiers: IdentifierKeys { routing, lookup },
            seal: ring(dir, "seal.keys")?,
            refresh: ring(dir, "refresh.keys")?,
            pepper: ring(dir, "pepper.keys")?,
        })
    }
}

/// The password of a database role.
pub fn password(dir: &Path, file: &str) -> Result<String, ConfigError> {
    let text = read(dir, file)?;
    let password = text.trim();
    if password.is_empty() {
        Err(ConfigError(format!("secrets.dir: {file} is empty")))
    } else {
        Ok(password.to_owned())
    }
}

fn key(dir: &Path, file: &str) -> Result<[u8; 32], ConfigError> {
    let parsed = parse_key32(&read(dir, file)?);
    parsed.map(|key| *key).map_err(|e| ConfigError(format!("secrets.dir: {file}: {e}")))
}

fn ring(dir: &Path, file: &str) -> Result<SecretRing, ConfigError> {
    SecretRing::parse(&read(dir, file)?).map_err(|e| ConfigError(format!("secrets.dir: {file}: {e}")))
}

fn read(dir: &Path, file: &str) -> Result<String, ConfigError> {
    let path = dir.join(file);
    std::fs::read_to_string(&path)
        .map_err(|e| ConfigError(format!("secrets.dir: {}: {}", path.display(), e.kind())))
}
