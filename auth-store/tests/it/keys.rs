//! Signing keys through the directory.
use std::sync::Arc;

use auth_core::domain::KeyRecord;
use auth_core::ports::{KeyRow, KeyStore};
use auth_store::Keys;
use chrono::{Duration, SubsecRound, Utc};

use crate::Trials;
use crate::env::{Env, SystemClock};

pub fn add(trials: &mut Trials) {
    trials.add("keys::insert_end_and_distrust", life);
}

fn key(kid: &str) -> KeyRow {
    let now = Utc::now().trunc_subsecs(6);
    let record = KeyRecord {
        kid: kid.to_owned(),
        published_at: now,
        signs_from: now,
        signs_until: now + Duration::days(1),
        distrusted_at: None,
    };
    KeyRow { record, public: vec![1; 32], sealed_private: vec![2; 60] }
}

async fn life(env: Arc<Env>) {
    // The nodes' role may write keys; nothing else of the directory.
    let keys = Keys::new(env.router.clone(), Arc::new(SystemClock));
    assert!(keys.list().await.unwrap().is_empty());
    let first = key("first");
    assert!(keys.insert(&first, 0).await.unwrap());
    assert!(!keys.insert(&key("second"), 0).await.unwrap(), "somebody else added one meanwhile");
    assert!(keys.insert(&key("second"), 1).await.unwrap());
    let listed = keys.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed.iter().find(|k| k.record.kid == "first").unwrap().record, first.record);
    let until = Utc::now().trunc_subsecs(6) + Duration::hours(1);
    assert!(keys.set_signs_until("first", until).await.unwrap());
    assert!(!keys.set_signs_until("nobody", until).await.unwrap());
    assert!(keys.distrust("second").await.unwrap().is_empty(), "both shards were told");
    let told = env.count("SELECT count(*) FROM meta.distrusted_key WHERE kid = 'second'".to_owned()).await;
    assert_eq!(told, 1);
    for _ in 0..100 {
        let held = keys.snapshot();
        if held.len() == 2 && held.iter().any(|k| k.record.distrusted_at.is_some()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the snapshot never followed");
}
