//! Hashing passwords within bounds: Argon2id with a pepper, on memory that is fixed and never fresh.
//!
//! **Permits.** A hash is 15 ms of a core and 19 MiB. There are as many permits as `permits`, and the permit *is* the
//! memory: an arena that goes from hand to hand, known devices first ([`HashClass`]). Who gets none within `wait_ms` is told [`HashError::Busy`] (503, never "wrong
//! password"). The arena moves into the blocking task, so that a request that is cancelled while hashing neither frees
//! its permit early nor shares its memory; the arena returns when the work ends, also by a panic.
//! **Memory.** Arenas grow on first use and stay. A row from times of higher parameters gets temporary memory from a
//! budget of 1 GiB that all such rows of this node share; so the whole is at most permits × memory + 1 GiB. Arenas are
//! not wiped between uses: the next hash overwrites them, and wiping would cost a fifth of a hash.
//! **Pepper.** The secret input of Argon2 (RFC 9106, section 3.1): a stolen database alone cannot be attacked.
//! **Clock.** Durations are measured for a metric; they decide nothing.

use super::hash_queue::{Queue, Turn};
use super::mac::constant_time_eq;
use super::password_format::{Argon2id, Format, MAX_MEMORY_KIB};
use super::ring::SecretRing;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use super::hash_queue::HashClass;
pub use super::password_format::{BadStored, Cost, StoredPassword};

const OUTPUT_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// bcrypt looks at no more of a password.
const BCRYPT_BYTES: usize = 72;

/// What new hashes cost, and how many may run.
#[derive(Clone, Debug)]
pub struct HashConfig {
    /// Memory of a hash, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// How many hashes run at once: the number of cores.
    pub permits: usize,
    /// How long a caller waits for a permit, in milliseconds.
    pub wait_ms: u64,
    /// The peppers; the first goes into new hashes.
    pub peppers: SecretRing,
}

/// Why a configuration cannot be used: names the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHashConfig {
    /// The Argon2 parameters are impossible or beyond the bounds of stored rows.
    #[error("memory_kib, passes and lanes are out of bounds")]
    Cost,
    /// Between 1 and 1024.
    #[error("permits is not between 1 and 1024")]
    Permits,
}

/// Why there is no answer. None of these says anything about the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// No permit came free in time.
    #[error("all hashing permits are taken")]
    Busy,
    /// The runtime is shutting down, or the work panicked.
    #[error("hashing was stopped")]
    Stopped,
    /// The memory could not be had.
    #[error("no memory to hash with")]
    OutOfMemory,
    /// The row needs a pepper that this node's ring does not hold.
    #[error("pepper {0} is not in the ring")]
    UnknownPepper(u32),
    /// The row cannot be used.
    #[error(transparent)]
    Stored(#[from] BadStored),
}

/// The result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is the password.
    pub matches: bool,
    /// Whether the row was written with other parameters than today's. Rehash it if the password matches.
    pub needs_rehash: bool,
}

/// Hashes and verifies. Cheap to clone; all clones share the permits.
#[derive(Clone)]
pub struct PasswordHasher {
    inner: Arc<Inner>,
}

struct Inner {
    cost: Cost,
    wait: Duration,
    peppers: SecretRing,
    arenas: Queue<Vec<Block>>,
    /// KiB that rows larger than an arena may still take.
    oversize: Arc<Semaphore>,
    dummy: StoredPassword,
}

impl PasswordHasher {
    /// Checks the configuration. No memory is taken before the first hash.
    ///
    /// # Errors
    /// See [`BadHashConfig`].
    pub fn new(config: HashConfig) -> Result<Self, BadHashConfig> {
        let cost = Cost { memory_kib: config.memory_kib, passes: config.passes, lanes: config.lanes };
        let cost = cost.check().map_err(|_| BadHashConfig::Cost)?;
        if !(1..=1024).contains(&config.permits) {
            return Err(BadHashConfig::Permits);
        }
        let nobody = Argon2id { cost, salt: vec![0; SALT_BYTES], output: vec![0; OUTPUT_BYTES] };
        let dummy = StoredPassword { phc: nobody.to_string(), pepper_id: Some(config.peppers.current().0) };
        let inner = Inner {
            cost,
            wait: Duration::from_millis(config.wait_ms),
            peppers: config.peppers,
            arenas: Queue::of(vec![Vec::new(); config.permits]),
            oversize: Arc::new(Semaphore::new(MAX_MEMORY_KIB as usize)),
            dummy,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Hashes a new password with today's parameters. `salt` must come fresh from the random generator.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn hash(
        &self,
        password: &[u8],
        salt: [u8; SALT_BYTES],
        class: HashClass,
    ) -> Result<StoredPassword, HashError> {
        let (pepper_id, pepper) = self.inner.peppers.current();
        let (cost, pepper, password) =
            (self.inner.cost, Zeroizing::new(*pepper), Zeroizing::new(password.to_vec()));
        let work = move |memory: &mut Vec<Block>| {
            let mut hash = Argon2id { cost, salt: salt.to_vec(), output: vec![0; OUTPUT_BYTES] };
            hash.output = compute(&hash, Some(&pepper), &password, memory)?.to_vec();
            Ok(hash.to_string())
        };
        let phc = self.run(class, 0, work).await?;
        Ok(StoredPassword { phc, pepper_id: Some(pepper_id) })
    }

    /// Whether it is the password of that row. The comparison takes constant time.
    ///
    /// bcrypt rows: a password of more than 72 bytes, or with a NUL, never matches (bcrypt would see a part of it
    /// only), but is hashed like any other.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn verify(
        &self,
        password: &[u8],
        stored: &StoredPassword,
        class: HashClass,
    ) -> Result<Verdict, HashError> {
        let password = Zeroizing::new(password.to_vec());
        let row = match Format::parse(&stored.phc)? {
            Format::Argon2id(row) => row,
            Format::Bcrypt(_) if stored.pepper_id.is_some() => return Err(BadStored::Peppered.into()),
            Format::Bcrypt(row) => {
                let matches = self.run(class, 0, move |_| bcrypt_matches(&password, &row)).await?;
                return Ok(Verdict { matches, needs_rehash: true });
            }
        };
        let pepper = match stored.pepper_id {
            None => None,
            Some(id) => {
                Some(Zeroizing::new(*self.inner.peppers.get(id).ok_or(HashError::UnknownPepper(id))?))
            }
        };
        let needs_rehash = self.is_outdated(&row, stored.pepper_id);
        let oversize_kib =
            if row.cost.memory_kib > self.inner.cost.memory_kib { row.cost.memory_kib } else { 0 };
        let work = move |memory: &mut Vec<Block>| {
            let output = compute(&row, pepper.as_deref(), &password, memory)?;
            Ok(constant_time_eq(&output, &row.output))
        };
        let matches = self.run(class, oversize_kib, work).await?;
        Ok(Verdict { matches, needs_rehash })
    }

    /// Costs what [`Self::verify`] costs against a row with today's parameters, and never matches: for users who do
    /// not exist.
    ///
    /// # Errors
    /// See [`HashError`]: unknown users must get the same 503 as known ones.
    pub async fn verify_dummy(&self, password: &[u8]) -> Result<Verdict, HashError> {
        self.verify(password, &self.inner.dummy, HashClass::Login).await?;
        Ok(Verdict { matches: false, needs_rehash: false })
    }

    fn is_outdated(&self, row: &Argon2id, pepper_id: Option<u32>) -> bool {
        row.cost != self.inner.cost
            || pepper_id != Some(self.inner.peppers.current().0)
            || row.salt.len() < SALT_BYTES
            || row.output.len() != OUTPUT_BYTES
    }

    /// Waits for a permit, then works on a blocking thread with the permit's memory, or with temporary memory.
    async fn run<T, F>(&self, class: HashClass, oversize_kib: u32, work: F) -> Result<T, HashError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Vec<Block>) -> Result<T, HashError> + Send + 'static,
    {
        let waiting = Gauge::enter("tessera_hash_waiting");
        let permit = tokio::time::timeout(self.inner.wait, self.permit(class, oversize_kib)).await;
        drop(waiting);
        let permit = permit.unwrap_or(Err(HashError::Busy));
        if matches!(permit, Err(HashError::Busy)) {
            metrics::counter!("tessera_hash_rejected_total", "class" => class.label()).increment(1);
        }
        let (budget, mut arena) = permit?;
        let running = Gauge::enter("tessera_hash_running");
        let task = tokio::task::spawn_blocking(move || {
            let (_running, started) = (running, Instant::now());
            let result = match budget {
                None => work(&mut arena),
                Some(_held) => work(&mut Vec::new()),
            };
            metrics::histogram!("tessera_hash_seconds").record(started.elapsed().as_secs_f64());
            result
        });
        task.await.unwrap_or(Err(HashError::Stopped))
    }

    /// The budget comes first, so that who waits for it keeps nobody else from hashing.
    async fn permit(&self, class: HashClass, oversize_kib: u32) -> Result<Permit, HashError> {
        let budget = match oversize_kib {
            0 => None,
            kib => Some(Arc::clone(&self.inner.oversize).acquire_many_owned(kib).await),
        };
        let budget = budget.transpose().map_err(|_| HashError::Stopped)?;
        let arena = self.inner.arenas.turn(class).await.map_err(|_| HashError::Busy)?;
        Ok((budget, arena))
    }
}

type Permit = (Option<OwnedSemaphorePermit>, Turn<Vec<Block>>);

/// The Argon2id output for a row's parameters and salt; the row's own output gives the length only.
fn compute(
    row: &Argon2id,
    pepper: Option<&[u8; 32]>,
    password: &[u8],
    memory: &mut Vec<Block>,
) -> Result<Zeroizing<Vec<u8>>, HashError> {
    let Cost { memory_kib, passes, lanes } = row.cost;
    let mut output = Zeroizing::new(vec![0; row.output.len()]);
    let params =
        Params::new(memory_kib, passes, lanes, Some(output.len())).map_err(|_| BadStored::Malformed)?;
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.try_reserve_exact(blocks - memory.len()).map_err(|_| HashError::OutOfMemory)?;
        memory.resize(blocks, Block::new());
    }
    let secret: &[u8] = pepper.map_or(&[], |pepper| pepper);
    Argon2::new_with_secret(secret, Algorithm::Argon2id, Version::V0x13, params)
        .and_then(|argon2| {
            argon2.hash_password_into_with_memory(password, &row.salt, &mut output, &mut memory[..blocks])
        })
        .map_err(|_| BadStored::Malformed)?;
    Ok(output)
}

/// `non_truncating_verify` also refuses 72 bytes, which bcrypt sees whole; so the cut is made, and judged, here.
fn bcrypt_matches(password: &[u8], row: &str) -> Result<bool, HashError> {
    let seen = &password[..password.len().min(BCRYPT_BYTES)];
    let matches = bcrypt::verify(seen, row).map_err(|_| BadStored::Malformed)?;
    Ok(matches && password.len() <= BCRYPT_BYTES && !password.contains(&0))
}

/// Counts one up while it lives, however it ends.
struct Gauge(&'static str);

impl Gauge {
    fn enter(name: &'static str) -> Self {
        metrics::gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}

#[cfg(test)]
mod tests;
