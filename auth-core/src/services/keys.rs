//! The signing keys of this node: which signs now, which the JWKS shows, which are believed.
//!
//! All nodes compute the same from the same rows and the time. The set is rebuilt every second from the last good
//! rows in memory; a row that does not open is left out and reported, never fatal.
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use ed25519_dalek::VerifyingKey;

use crate::crypto::mac;
use crate::crypto::seal::Sealer;
use crate::crypto::signing_key::{Jwk, SigningKey, verifying_key};
use crate::domain::{KeyRecord, KeySchedule, KeyState, KeyTimes};
use crate::ports::{Clock, KeyRow, KeyStore, Random, StoreError, random_bytes};

/// The published key set, ready to send.
#[derive(Debug, Default)]
pub struct Jwks {
    /// The JSON body.
    pub body: String,
    /// Its strong ETag, with quotes.
    pub etag: String,
}

/// The keys as of one instant.
#[derive(Default)]
pub struct KeySet {
    signers: Vec<(KeyRecord, Arc<SigningKey>)>,
    schedule: Option<KeySchedule>,
    verifying: HashMap<String, VerifyingKey>,
    /// What `/.well-known/jwks.json` answers.
    pub jwks: Arc<Jwks>,
}

impl KeySet {
    /// The public key of a kid that is published now.
    pub fn verifying_key(&self, kid: &str) -> Option<&VerifyingKey> {
        self.verifying.get(kid)
    }
}

/// A key in `auth-node keys list`.
#[derive(Debug)]
pub struct ListedKey {
    /// Its times.
    pub record: KeyRecord,
    /// Where it is in its life.
    pub state: KeyState,
}

/// Why a key command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No such key.
    #[error("there is no key {0}")]
    Unknown(String),
    /// It is the only one that signs, or its successor keeps its lead until then.
    #[error("nothing else can sign before {0}: rotate first")]
    NoSuccessor(DateTime<Utc>),
    /// This process cannot open a single key of the directory: what it seals, the nodes could not open either.
    #[error("none of the existing keys can be opened with seal.keys: this is not the nodes' ring")]
    ForeignSeal,
    /// It has not begun to sign.
    #[error("{0} does not sign yet: distrust it if it must never")]
    NotSigning(String),
    /// Another process made a key at the same time.
    #[error("another process changed the keys meanwhile: try again")]
    Raced,
    /// The directory could not say.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The key life cycle on this node.
pub struct Keys {
    store: Arc<dyn KeyStore>,
    sealer: Arc<Sealer>,
    times: KeyTimes,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    set: ArcSwap<KeySet>,
    reported: Mutex<HashSet<String>>,
}

impl Keys {
    /// Starts from the last good rows.
    pub fn new(
        store: Arc<dyn KeyStore>,
        sealer: Arc<Sealer>,
        times: KeyTimes,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let keys =
            Self { store, sealer, times, clock, random, set: ArcSwap::default(), reported: Mutex::default() };
        keys.rebuild();
        keys
    }

    /// The keys as of the last rebuild.
    pub fn current(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.set.load()
    }

    /// The key that signs at `now`.
    pub fn signer(&self, now: DateTime<Utc>) -> Option<Arc<SigningKey>> {
        let set = self.set.load();
        let kid = &set.schedule.as_ref()?.signer(now)?.kid;
        set.signers.iter().find(|(record, _)| record.kid == *kid).map(|(_, key)| Arc::clone(key))
    }

    /// Recomputes everything from the last good rows and the time. Called every second.
    pub fn rebuild(&self) {
        let now = self.clock.now();
        let set = self.build(self.store.snapshot(), &self.store.distrusted(), now);
        self.set.store(Arc::new(set));
    }

    /// Makes keys until the horizon is covered. Every node calls it; the directory lets one of them win.
    pub async fn ensure_horizon(&self) -> Result<(), KeysError> {
        loop {
            let now = self.clock.now();
            let rows = self.store.list().await?;
            let seen = rows.len();
            let schedule = self.schedule(&rows, &[]);
            let Some(times) = schedule.next(now) else { return Ok(()) };
            self.check_seal(&rows)?;
            let key = self.make(times);
            if self.store.insert(&key, seen).await? {
                tracing::info!(key.id = %key.record.kid, signs_from = %key.record.signs_from, "made a signing key");
            }
        }
    }

    /// All keys with their states, as the directory has them.
    pub async fn list(&self) -> Result<Vec<ListedKey>, KeysError> {
        let rows = self.store.list().await?;
        let schedule = self.schedule(&rows, &[]);
        let now = self.clock.now();
        let listed =
            schedule.keys().iter().map(|k| ListedKey { record: k.clone(), state: schedule.state(k, now) });
        Ok(listed.collect())
    }

    /// Publishes a new key now; it signs after the lead. Returns it.
    pub async fn rotate(&self) -> Result<KeyRecord, KeysError> {
        let rows = self.store.list().await?;
        self.check_seal(&rows)?;
        let key = self.make(self.schedule(&rows, &[]).rotated(self.clock.now()));
        if !self.store.insert(&key, rows.len()).await? {
            return Err(KeysError::Raced);
        }
        Ok(key.record)
    }

    /// Ends a key's signing now; refused while nothing else could sign. Its tokens stay valid until they expire.
    pub async fn retire(&self, kid: &str) -> Result<(), KeysError> {
        let rows = self.store.list().await?;
        let now = self.clock.now();
        if rows.iter().any(|r| r.record.kid == kid && r.record.signs_from > now) {
            return Err(KeysError::NotSigning(kid.to_owned()));
        }
        let others: Vec<KeyRow> = rows.iter().filter(|r| r.record.kid != kid).cloned().collect();
        if others.len() == rows.len() {
            return Err(KeysError::Unknown(kid.to_owned()));
        }
        if !self.schedule(&others, &[]).is_covered(now) {
            let next = others.iter().map(|r| r.record.signs_from).filter(|at| *at > now).min();
            return Err(KeysError::NoSuccessor(next.unwrap_or(now + self.times.lead)));
        }
        if self.store.set_signs_until(kid, now).await? {
            Ok(())
        } else {
            Err(KeysError::Unknown(kid.to_owned()))
        }
    }

    /// Takes a key out of use everywhere, at once, and makes what is missing: if nothing else may sign now, a new key does
    /// without its lead; verifiers fetch an unknown kid once. Returns the shards that could not be told yet.
    pub async fn distrust(&self, kid: &str) -> Result<Vec<String>, KeysError> {
        let rows = self.store.list().await?;
        if !rows.iter().any(|r| r.record.kid == kid) {
            return Err(KeysError::Unknown(kid.to_owned()));
        }
        let untold = self.store.distrust(kid).await?;
        self.ensure_horizon().await?;
        Ok(untold)
    }

    fn check_seal(&self, rows: &[KeyRow]) -> Result<(), KeysError> {
        let opens = |r: &KeyRow| SigningKey::unseal(&r.record.kid, &r.sealed_private, &self.sealer).is_ok();
        if rows.is_empty() || rows.iter().any(opens) { Ok(()) } else { Err(KeysError::ForeignSeal) }
    }

    fn make(
        &self,
        (published_at, signs_from, signs_until): (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>),
    ) -> KeyRow {
        let key = SigningKey::from_seed(&random_bytes(&*self.random));
        let kid = key.kid().to_owned();
        KeyRow {
            record: KeyRecord { kid, published_at, signs_from, signs_until, distrusted_at: None },
            public: key.public().to_vec(),
            sealed_private: key.seal(&self.sealer, random_bytes(&*self.random)),
        }
    }

    fn schedule(&self, rows: &[KeyRow], distrusted: &[String]) -> KeySchedule {
        let records = rows.iter().map(|row| {
            let mut record = row.record.clone();
            if distrusted.contains(&record.kid) {
                record.distrusted_at.get_or_insert(DateTime::UNIX_EPOCH);
            }
            record
        });
        KeySchedule::new(records.collect(), self.times.clone())
    }

    /// Signs with what this node can open; publishes every good key, and whatever signs.
    fn build(&self, rows: Vec<KeyRow>, distrusted: &[String], now: DateTime<Utc>) -> KeySet {
        let good: Vec<KeyRow> = rows.into_iter().filter(|row| self.opens(row)).collect();
        let (mut own, mut signers) = (Vec::new(), Vec::new());
        for row in &good {
            if let Some(key) = self.unseal(row) {
                own.push(row.clone());
                signers.push((row.record.clone(), key));
            }
        }
        let (all, signing) = (self.schedule(&good, distrusted), self.schedule(&own, distrusted));
        let shown: BTreeSet<&str> =
            all.published(now).chain(signing.published(now)).map(|record| record.kid.as_str()).collect();
        let (mut verifying, mut jwks) = (HashMap::new(), Vec::new());
        for row in good.iter().filter(|row| shown.contains(row.record.kid.as_str())) {
            let key = verifying_key(&row.record.kid, &row.public);
            if let (Ok(key), Ok(bytes)) = (key, row.public.as_slice().try_into()) {
                verifying.insert(row.record.kid.clone(), key);
                jwks.push(Jwk::new(bytes));
            }
        }
        KeySet { signers, schedule: Some(signing), verifying, jwks: Arc::new(jwks_document(&jwks)) }
    }

    fn opens(&self, row: &KeyRow) -> bool {
        let good = verifying_key(&row.record.kid, &row.public).is_ok();
        if !good && self.is_news(&row.record.kid) {
            tracing::error!(key.id = %row.record.kid, "a signing key row is damaged and left out");
        }
        metrics::gauge!("tessera_signing_key_quarantined", "kid" => row.record.kid.clone()).set(if good {
            0.0
        } else {
            1.0
        });
        good
    }

    /// The set is rebuilt every second; a bad row is reported once.
    fn is_news(&self, kid: &str) -> bool {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(kid.to_owned())
    }

    /// The private half; already open ones are taken over from the set in use.
    fn unseal(&self, row: &KeyRow) -> Option<Arc<SigningKey>> {
        let known =
            self.set.load().signers.iter().find(|(r, _)| r.kid == row.record.kid).map(|(_, k)| Arc::clone(k));
        known.or_else(|| match SigningKey::unseal(&row.record.kid, &row.sealed_private, &self.sealer) {
            Ok(key) => Some(Arc::new(key)),
            Err(_) => {
                if self.is_news(&row.record.kid) {
                    tracing::error!(key.id = %row.record.kid, "a signing key cannot be opened with this node's seal keys");
                }
                None
            }
        })
    }
}

fn jwks_document(keys: &[Jwk]) -> Jwks {
    let body = serde_json::json!({ "keys": keys }).to_string();
    let digest = mac::sha256(body.as_bytes());
    let short: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    Jwks { body, etag: format!("\"{short}\"") }
}

#[cfg(test)]
mod tests;
