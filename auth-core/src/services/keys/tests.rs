//! Which keys sign and which are shown, when not all of them can be opened.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use chrono::Duration;

use super::*;
use crate::crypto::ring::SecretRing;

/// A directory in memory.
#[derive(Default)]
struct Rows(Mutex<Vec<KeyRow>>);

#[async_trait]
impl KeyStore for Rows {
    fn snapshot(&self) -> Vec<KeyRow> {
        self.0.lock().unwrap().clone()
    }
    fn distrusted(&self) -> Vec<String> {
        Vec::new()
    }
    async fn list(&self) -> Result<Vec<KeyRow>, StoreError> {
        Ok(self.snapshot())
    }
    async fn insert(&self, key: &KeyRow, seen: usize) -> Result<bool, StoreError> {
        let mut rows = self.0.lock().unwrap();
        let first = rows.len() == seen;
        rows.extend(first.then(|| key.clone()));
        Ok(first)
    }
    async fn set_signs_until(&self, _: &str, _: DateTime<Utc>) -> Result<bool, StoreError> {
        unreachable!()
    }
    async fn distrust(&self, _: &str) -> Result<Vec<String>, StoreError> {
        unreachable!()
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> DateTime<Utc> {
        now()
    }
}

/// Other bytes at each call.
#[derive(Default)]
struct Dice(AtomicU64);

impl Random for Dice {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(u8::try_from(self.0.fetch_add(1, Ordering::Relaxed) % 256).unwrap());
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn sealer(letter: char) -> Sealer {
    let key = letter.to_string().repeat(42) + "E";
    Sealer::new(SecretRing::parse(&format!("1 {key}\n")).unwrap())
}

/// A key that signs from then on, sealed by some ring.
fn row(seed: u8, began: Duration, sealer: &Sealer) -> KeyRow {
    let key = SigningKey::from_seed(&[seed; 32]);
    let signs_from = now() - began;
    let record = KeyRecord {
        kid: key.kid().to_owned(),
        published_at: signs_from - Duration::days(1),
        signs_from,
        signs_until: signs_from + Duration::days(30),
        distrusted_at: None,
    };
    KeyRow { record, public: key.public().to_vec(), sealed_private: key.seal(sealer, [seed; 24]) }
}

fn keys(rows: Vec<KeyRow>) -> Keys {
    let day = Duration::days(1);
    let times = KeyTimes {
        lead: day,
        rotation: Duration::days(30),
        horizon: Duration::days(2),
        overtime: day,
        linger: Duration::minutes(10),
    };
    let rows = Arc::new(Rows(Mutex::new(rows)));
    Keys::new(rows, Arc::new(sealer('A')), times, Arc::new(Still), Arc::new(Dice::default()))
}

fn signer(keys: &Keys) -> Option<String> {
    keys.signer(now()).map(|key| key.kid().to_owned())
}

#[test]
fn a_key_that_no_node_can_open_never_signs() {
    let (ours, foreign) = (sealer('A'), sealer('B'));
    let good = row(1, Duration::days(3), &ours);
    // It began later, so it would sign if it could be opened.
    let sealed_elsewhere = row(2, Duration::days(2), &foreign);
    let mut damaged = row(3, Duration::days(1), &ours);
    damaged.sealed_private.truncate(20);
    let mut swapped = row(4, Duration::hours(1), &ours);
    swapped.sealed_private = row(5, Duration::hours(1), &ours).sealed_private;
    let rows = vec![good.clone(), sealed_elsewhere.clone(), damaged, swapped];
    let keys = keys(rows);
    assert_eq!(signer(&keys).as_deref(), Some(good.record.kid.as_str()));
    // Another node may hold that ring: what it signs is believed here.
    assert!(keys.current().verifying_key(&sealed_elsewhere.record.kid).is_some());
    keys.rebuild();
    assert_eq!(signer(&keys).as_deref(), Some(good.record.kid.as_str()), "nor the next time");
}

#[test]
fn with_no_key_that_opens_nobody_signs() {
    let keys = keys(vec![row(1, Duration::days(3), &sealer('B'))]);
    assert_eq!(signer(&keys), None);
}

#[tokio::test]
async fn a_node_with_a_foreign_ring_makes_no_keys() {
    let keys = keys(vec![row(1, Duration::days(29), &sealer('B'))]);
    assert!(matches!(keys.ensure_horizon().await, Err(KeysError::ForeignSeal)));
    assert!(matches!(keys.rotate().await, Err(KeysError::ForeignSeal)));
}

#[tokio::test]
async fn the_first_key_signs_at_once_and_the_horizon_is_covered() {
    let keys = keys(Vec::new());
    keys.ensure_horizon().await.unwrap();
    keys.rebuild();
    assert!(signer(&keys).is_some());
}
