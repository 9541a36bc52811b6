//! Tests of password hashing: vectors of other implementations, permits under pressure, rows of all kinds.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

const RING: &str = "1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n\
                    2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI\n";
const PASSWORD: &[u8] = b"correct horse";

/// Made with the reference implementation (argon2-cffi): pepper 1, today's parameters of [`hasher`].
const PEPPERED: &str =
    "$argon2id$v=19$m=64,t=2,p=1$AwMDAwMDAwMDAwMDAwMDAw$9FX7wKKiAbbxgcDxWSjygId9lML0qR5nkUFwvDs3yMc";
/// The same without a pepper.
const PLAIN: &str =
    "$argon2id$v=19$m=64,t=2,p=1$AwMDAwMDAwMDAwMDAwMDAw$gD1CKXMeRNEcwu3dRuzcn6TtIF40dcL4hYGqCA1A5is";
/// The same with pepper 2, four lanes and more memory than an arena.
const LARGE: &str =
    "$argon2id$v=19$m=256,t=3,p=4$AwMDAwMDAwMDAwMDAwMDAw$f3TFiEpIeNLqHLi/RkQY3DQ/gYzXEEdEwjfFlEpMNaE";
/// No pepper, a short output, more memory.
const SHORT: &str = "$argon2id$v=19$m=512,t=1,p=1$AwMDAwMDAwMDAwMDAwMDAw$L6zGp8e+lehLQFElA5vNMHS33BeruOTW";
/// From the test suite of crypt_blowfish.
const BCRYPT: (&str, &str) = ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
const BCRYPT_72: (&str, &str) = (
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored",
    "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
);

fn config() -> HashConfig {
    let peppers = SecretRing::parse(RING).unwrap();
    HashConfig { memory_kib: 64, passes: 2, lanes: 1, permits: 2, wait_ms: 10_000, peppers }
}

fn hasher() -> PasswordHasher {
    PasswordHasher::new(config()).unwrap()
}

fn row(phc: &str, pepper_id: Option<u32>) -> StoredPassword {
    StoredPassword { phc: phc.to_owned(), pepper_id }
}

fn verdict(matches: bool, needs_rehash: bool) -> Result<Verdict, HashError> {
    Ok(Verdict { matches, needs_rehash })
}

#[tokio::test]
async fn hashes_are_those_of_the_reference_implementation() {
    assert_eq!(hasher().hash(PASSWORD, [3; 16], HashClass::Login).await.unwrap(), row(PEPPERED, Some(1)));
    let rows = [
        (row(PEPPERED, Some(1)), false),
        (row(PLAIN, None), true),
        (row(LARGE, Some(2)), true),
        (row(SHORT, None), true),
    ];
    for (row, outdated) in rows {
        assert_eq!(
            hasher().verify(PASSWORD, &row, HashClass::Login).await,
            verdict(true, outdated),
            "{}",
            row.phc
        );
        assert_eq!(
            hasher().verify(b"incorrect horse", &row, HashClass::Login).await,
            verdict(false, outdated),
            "{}",
            row.phc
        );
    }
}

#[tokio::test]
async fn the_pepper_is_part_of_the_hash() {
    assert_eq!(hasher().verify(PASSWORD, &row(PEPPERED, None), HashClass::Login).await, verdict(false, true));
    assert_eq!(
        hasher().verify(PASSWORD, &row(PEPPERED, Some(2)), HashClass::Login).await,
        verdict(false, true)
    );
    assert_eq!(
        hasher().verify(PASSWORD, &row(PEPPERED, Some(3)), HashClass::Login).await,
        Err(HashError::UnknownPepper(3))
    );
}

#[tokio::test]
async fn unknown_users_never_match() {
    let hasher = hasher();
    assert_eq!(hasher.verify_dummy(PASSWORD).await, verdict(false, false));
    assert_eq!(Format::parse(&hasher.inner.dummy.phc).map(|_| ()), Ok(()));
    let current = hasher.hash(PASSWORD, [9; 16], HashClass::Login).await.unwrap();
    let params = |phc: &str| phc.split('$').nth(3).map(str::to_owned);
    assert_eq!(params(&hasher.inner.dummy.phc), params(&current.phc));
    assert_eq!(hasher.inner.dummy.pepper_id, current.pepper_id);
    assert_eq!(hasher.inner.dummy.phc.len(), current.phc.len());
}

#[tokio::test]
async fn bcrypt_is_verified_whole_or_not_at_all() {
    let (password, phc) = BCRYPT;
    let hasher = hasher();
    assert_eq!(
        hasher.verify(password.as_bytes(), &row(phc, None), HashClass::Login).await,
        verdict(true, true)
    );
    assert_eq!(hasher.verify(b"U*V", &row(phc, None), HashClass::Login).await, verdict(false, true));
    // bcrypt repeats the password and its NUL to fill the key: this one makes the same key.
    assert!(bcrypt::verify(b"U*U\0U*U", phc).unwrap());
    assert_eq!(hasher.verify(b"U*U\0U*U", &row(phc, None), HashClass::Login).await, verdict(false, true));
    assert_eq!(
        hasher.verify(password.as_bytes(), &row(phc, Some(1)), HashClass::Login).await,
        Err(BadStored::Peppered.into())
    );
    let (long, phc) = BCRYPT_72;
    assert_eq!(
        hasher.verify(&long.as_bytes()[..72], &row(phc, None), HashClass::Login).await,
        verdict(true, true)
    );
    assert_eq!(hasher.verify(long.as_bytes(), &row(phc, None), HashClass::Login).await, verdict(false, true));
    assert_eq!(
        hasher.verify(&long.as_bytes()[..71], &row(phc, None), HashClass::Login).await,
        verdict(false, true)
    );
}

#[tokio::test]
async fn poisoned_rows_are_refused_before_any_work() {
    let cases = [
        (PEPPERED.replace("m=64", "m=4194304"), BadStored::TooExpensive),
        (PEPPERED.replace("t=2", "t=4294967295"), BadStored::TooExpensive),
        (PEPPERED.replace("p=1", "p=9"), BadStored::Malformed),
        (BCRYPT.1.replace("$05$", "$31$"), BadStored::TooExpensive),
        ("!".to_owned(), BadStored::Malformed),
    ];
    for (phc, reason) in cases {
        let answer = hasher().verify(PASSWORD, &row(&phc, None), HashClass::Login).await;
        assert_eq!(answer, Err(HashError::Stored(reason)), "{phc}");
    }
}

#[tokio::test]
async fn who_waits_too_long_is_told_busy() {
    let hasher = PasswordHasher::new(HashConfig { permits: 1, wait_ms: 20, ..config() }).unwrap();
    let held = hasher.inner.arenas.turn(HashClass::Login).await.unwrap();
    assert_eq!(hasher.hash(PASSWORD, [3; 16], HashClass::Login).await, Err(HashError::Busy));
    assert_eq!(
        hasher.verify(PASSWORD, &row(PEPPERED, Some(1)), HashClass::Login).await,
        Err(HashError::Busy)
    );
    assert_eq!(
        hasher.verify(BCRYPT.0.as_bytes(), &row(BCRYPT.1, None), HashClass::Login).await,
        Err(HashError::Busy)
    );
    assert_eq!(hasher.verify_dummy(PASSWORD).await, Err(HashError::Busy));
    drop(held);
    assert_eq!(
        hasher.verify(PASSWORD, &row(PEPPERED, Some(1)), HashClass::Login).await,
        verdict(true, false)
    );
}

#[tokio::test]
async fn rows_larger_than_an_arena_share_a_budget_and_do_not_grow_the_arena() {
    let hasher = PasswordHasher::new(HashConfig { permits: 1, wait_ms: 20, ..config() }).unwrap();
    assert_eq!(hasher.verify(PASSWORD, &row(LARGE, Some(2)), HashClass::Login).await, verdict(true, true));
    assert_eq!(hasher.inner.arenas.turn(HashClass::Login).await.unwrap().len(), 0);
    assert_eq!(hasher.inner.oversize.available_permits(), MAX_MEMORY_KIB as usize);
    let taken = Arc::clone(&hasher.inner.oversize).acquire_many_owned(MAX_MEMORY_KIB - 255).await.unwrap();
    assert_eq!(hasher.verify(PASSWORD, &row(LARGE, Some(2)), HashClass::Login).await, Err(HashError::Busy));
    assert_eq!(
        hasher.verify(PASSWORD, &row(PEPPERED, Some(1)), HashClass::Login).await,
        verdict(true, false)
    );
    drop(taken);
    assert_eq!(hasher.inner.arenas.turn(HashClass::Login).await.unwrap().len(), 64);
}

/// A request that goes away while it hashes: its permit and memory come back when the work is done, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_request_keeps_its_permit_until_the_work_ends() {
    let hasher = PasswordHasher::new(HashConfig { permits: 1, wait_ms: 20, ..config() }).unwrap();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = std::sync::mpsc::channel::<()>();
    let request = {
        let hasher = hasher.clone();
        let work = move |_: &mut Vec<Block>| {
            let _ = started.send(());
            may_finish.recv().map_err(|_| HashError::Stopped)
        };
        tokio::spawn(async move { hasher.run(HashClass::Login, 0, work).await })
    };
    has_started.await.unwrap();
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    assert_eq!(
        hasher.hash(PASSWORD, [3; 16], HashClass::Login).await,
        Err(HashError::Busy),
        "the work still runs"
    );
    finish.send(()).unwrap();
    let returned =
        tokio::time::timeout(Duration::from_secs(10), hasher.inner.arenas.turn(HashClass::Login)).await;
    drop(returned.unwrap().unwrap());
    assert_eq!(
        hasher.verify(PASSWORD, &row(PEPPERED, Some(1)), HashClass::Login).await,
        verdict(true, false)
    );
}

#[tokio::test]
async fn a_request_cancelled_while_it_waits_takes_nothing() {
    let hasher = PasswordHasher::new(HashConfig { permits: 1, ..config() }).unwrap();
    let held = hasher.inner.arenas.turn(HashClass::Login).await.unwrap();
    let stored = row(LARGE, Some(2));
    let waiting =
        tokio::time::timeout(Duration::from_millis(20), hasher.verify(PASSWORD, &stored, HashClass::Login))
            .await;
    assert!(waiting.is_err());
    assert_eq!(hasher.inner.oversize.available_permits(), MAX_MEMORY_KIB as usize);
    drop(held);
    assert_eq!(hasher.verify(PASSWORD, &stored, HashClass::Login).await, verdict(true, true));
}

#[tokio::test]
async fn a_panic_gives_the_memory_back() {
    let hasher = PasswordHasher::new(HashConfig { permits: 1, ..config() }).unwrap();
    let answer = hasher.run(HashClass::Login, 0, |_| -> Result<(), HashError> { panic!("planted") }).await;
    assert_eq!(answer, Err(HashError::Stopped));
    assert_eq!(
        hasher.verify(PASSWORD, &row(PEPPERED, Some(1)), HashClass::Login).await,
        verdict(true, false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_than_there_are_permits() {
    let hasher = hasher();
    let running = Arc::new(Semaphore::new(2));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (hasher, running) = (hasher.clone(), Arc::clone(&running));
            tokio::spawn(async move {
                let work = move |_: &mut Vec<Block>| {
                    let inside = running.try_acquire().map_err(|_| HashError::Busy)?;
                    std::thread::sleep(Duration::from_millis(2));
                    drop(inside);
                    Ok(())
                };
                hasher.run(HashClass::Login, 0, work).await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let new = |config| PasswordHasher::new(config).map(|_| ());
    assert_eq!(new(HashConfig { memory_kib: 7, ..config() }), Err(BadHashConfig::Cost));
    assert_eq!(new(HashConfig { passes: 0, ..config() }), Err(BadHashConfig::Cost));
    assert_eq!(new(HashConfig { lanes: 0, ..config() }), Err(BadHashConfig::Cost));
    assert_eq!(new(HashConfig { memory_kib: MAX_MEMORY_KIB + 1, ..config() }), Err(BadHashConfig::Cost));
    assert_eq!(new(HashConfig { permits: 0, ..config() }), Err(BadHashConfig::Permits));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn passwords_round_trip(password in proptest::collection::vec(any::<u8>(), 0..200), salt in any::<[u8; 16]>(), flip in 1u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let stored = hasher().hash(&password, salt, HashClass::Login).await.unwrap();
            prop_assert_eq!(hasher().verify(&password, &stored, HashClass::Login).await, verdict(true, false));
            let mut other = password.clone();
            other.push(flip);
            prop_assert_eq!(hasher().verify(&other, &stored, HashClass::Login).await, verdict(false, false));
            Ok(())
        })?;
    }
}
