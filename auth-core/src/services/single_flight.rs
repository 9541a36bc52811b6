//! One look for everybody who asks the same at the same time.
//!
//! The map holds what is being looked up now and nothing else: an entry lives as long as somebody waits for it, so there
//! are at most as many as there are requests.
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// Looks that are under way, by what is looked for.
pub(super) struct SingleFlight<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// What `look` finds, or what another caller's look finds that is under way. A look that fails, or whose caller gives
    /// up, is nobody else's: the next one looks.
    pub async fn run<E, F>(&self, key: K, look: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        let flight = Arc::clone(self.lock().entry(key).or_default());
        let _leaves = Leaves { of: self, key, flight: &flight };
        flight.get_or_try_init(look).await.cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<OnceCell<V>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever is done first, or gives up, takes the entry out: later callers look again instead of sharing an old answer,
/// and nothing stays behind.
struct Leaves<'a, K: Copy + Eq + Hash, V: Clone> {
    of: &'a SingleFlight<K, V>,
    key: K,
    flight: &'a Arc<OnceCell<V>>,
}

impl<K: Copy + Eq + Hash, V: Clone> Drop for Leaves<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.of.lock();
        if flights.get(&self.key).is_some_and(|current| Arc::ptr_eq(current, self.flight)) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn many_callers_share_one_look_and_the_next_one_looks_anew() {
        let (flights, looks, gate) = (SingleFlight::default(), AtomicUsize::new(0), Semaphore::new(0));
        let look = async || {
            gate.acquire().await.map_err(|_| ())?.forget();
            Ok::<_, ()>(looks.fetch_add(1, Ordering::SeqCst))
        };
        let callers = futures_all(1000, || flights.run(7, look));
        let opener = async {
            assert_eq!(flights.lock().len(), 1);
            gate.add_permits(1);
        };
        let (found, ()) = tokio::join!(callers, opener);
        assert!(found.iter().all(|found| *found == Ok(0)), "one look");
        assert!(flights.lock().is_empty(), "nothing stays behind");
        gate.add_permits(1);
        assert_eq!(flights.run(7, look).await, Ok(1));
    }

    #[tokio::test]
    async fn who_gives_up_or_fails_leaves_nothing_behind() {
        let flights = SingleFlight::<u8, u8>::default();
        {
            let mut gone = Box::pin(flights.run(7, std::future::pending::<Result<u8, ()>>));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(gone.as_mut().poll(&mut context).is_pending());
            assert_eq!(flights.lock().len(), 1);
        }
        assert!(flights.lock().is_empty());
        assert_eq!(flights.run(7, async || Err("away")).await, Err("away"));
        assert!(flights.lock().is_empty());
        assert_eq!(flights.run(7, async || Ok::<_, ()>(9)).await, Ok(9));
    }

    async fn futures_all<F: Future>(many: usize, make: impl Fn() -> F) -> Vec<F::Output> {
        let mut flying: Vec<_> = (0..many).map(|_| Box::pin(make())).collect();
        let mut done = Vec::new();
        std::future::poll_fn(|context| {
            flying.retain_mut(|one| match one.as_mut().poll(context) {
                std::task::Poll::Ready(output) => {
                    done.push(output);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if flying.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        done
    }
}
