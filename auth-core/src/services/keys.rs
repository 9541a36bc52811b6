//! The signing keys of this node: which signs now, which the JWKS shows, which are believed.
//!
//! All nodes compute the same from the same rows and the time. The set is rebuilt every second from the last good
//! rows in memory; a row that does not open is left out and reported, never fatal.
use std::collections::{HashMap, HashSet};
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
        let others: Vec<KeyRow> = rows.iter().filter(|r| r.record.kid != kid).cloned().collect();
        if others.len() == rows.len() {
            return Err(KeysError::Unknown(kid.to_owned()));
        }
        if self.schedule(&others, &[]).signer(now).is_none() {
            let next = others.iter().map(|r| r.record.signs_from).filter(|at| *at > now).min();
            return Err(KeysError::NoSuccessor(next.unwrap_or(now + self.times.lead)));
        }
        if self.store.set_signs_until(kid, now).await? {
            Ok(())
        } else {
            Err(KeysError::Unknown(kid.to_owned()))
        }
    }

    /// Takes a key out of use everywhere, at once. If nothing else may sign now, a new key does without its lead:
    /// verifiers fetch an unknown kid once. Returns the shards that could not be told yet.
    pub async fn distrust(&self, kid: &str) -> Result<Vec<String>, KeysError> {
        let rows = self.store.list().await?;
        if !rows.iter().any(|r| r.record.kid == kid) {
            return Err(KeysError::Unknown(kid.to_owned()));
        }
        let untold = self.store.distrust(kid).await?;
        let rows = self.store.list().await?;
        let now = self.clock.now();
        let schedule = self.schedule(&rows, &[kid.to_owned()]);
        if schedule.signer(now).is_none() {
            let until = schedule.rotated(now).2;
            if !self.store.insert(&self.make((now, now, until)), rows.len()).await? {
                return Err(KeysError::Raced);
            }
        }
        Ok(untold)
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

    fn build(&self, rows: Vec<KeyRow>, distrusted: &[String], now: DateTime<Utc>) -> KeySet {
        let good: Vec<KeyRow> = rows.into_iter().filter(|row| self.opens(row)).collect();
        let schedule = self.schedule(&good, distrusted);
        let mut set = KeySet::default();
        let mut jwks = Vec::new();
        for record in schedule.published(now) {
            let Some(row) = good.iter().find(|row| row.record.kid == record.kid) else { continue };
            if let (Ok(key), Ok(bytes)) =
                (verifying_key(&record.kid, &row.public), row.public.as_slice().try_into())
            {
                set.verifying.insert(record.kid.clone(), key);
                jwks.push(Jwk::new(bytes));
            }
        }
        set.signers = good.iter().filter_map(|row| self.unseal(row)).collect();
        set.schedule = Some(schedule);
        set.jwks = Arc::new(jwks_document(&jwks));
        set
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
    fn unseal(&self, row: &KeyRow) -> Option<(KeyRecord, Arc<SigningKey>)> {
        let known =
            self.set.load().signers.iter().find(|(r, _)| r.kid == row.record.kid).map(|(_, k)| Arc::clone(k));
        let key = known.or_else(|| match SigningKey::unseal(&row.record.kid, &row.sealed_private, &self.sealer) {
            Ok(key) => Some(Arc::new(key)),
            Err(_) => {
                if self.is_news(&row.record.kid) {
                    tracing::error!(key.id = %row.record.kid, "a signing key cannot be opened with this node's seal keys");
                }
                None
            }
        })?;
        Some((row.record.clone(), key))
    }
}

fn jwks_document(keys: &[Jwk]) -> Jwks {
    let body = serde_json::json!({ "keys": keys }).to_string();
    let digest = mac::sha256(body.as_bytes());
    let short: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    Jwks { body, etag: format!("\"{short}\"") }
}
