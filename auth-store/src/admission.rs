//! Who gets in when a shard has more than enough to do: the bulkhead of each shard, and the order of shedding.
//!
//! At most `cap` attempts of this node are on their way to one shard, waiting for a connection or using it, so that a
//! slow shard holds that many callers and not all of them. The lower the class of a call, the smaller the part of the
//! cap that it may find in use and still get in: as a shard slows down, registering is turned away first, then logins
//! of unknown devices, and revocations last. Who waits for a fenced bucket is outside (it has a bulkhead of its own).
//!
//! Nobody queues here: what is turned away was not begun, so it can be told "overloaded" at once and come back.
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::Gauge;
use shard_router::ShardId;

/// What is shed first has the highest number (RELIABILITY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Revoking: logout, ending sessions, a new password, deleting.
    P0,
    /// Refresh, session check, and the last step of a login, whose hash is paid.
    P1,
    /// Login from a device that says it is known; other calls of whoever is logged in.
    P2,
    /// Login.
    P3,
    /// Registering.
    P4,
    /// What nobody waits for.
    P5,
}

impl Class {
    /// The part of the cap that may be in use when one of this class gets in, in percent.
    fn share(self) -> usize {
        match self {
            Self::P0 => 100,
            Self::P1 => 90,
            Self::P2 => 75,
            Self::P3 => 60,
            Self::P4 => 40,
            Self::P5 => 20,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::P0 => "p0",
            Self::P1 => "p1",
            Self::P2 => "p2",
            Self::P3 => "p3",
            Self::P4 => "p4",
            Self::P5 => "p5",
        }
    }
}

/// The doors of all shards.
pub(crate) struct Admission {
    cap: usize,
    doors: RwLock<HashMap<ShardId, Arc<Door>>>,
}

struct Door {
    inside: AtomicUsize,
    gauge: Gauge,
}

/// Leave to make one attempt.
pub(crate) struct Inside(Arc<Door>);

impl Admission {
    pub fn new(cap: usize) -> Self {
        Self { cap, doors: RwLock::default() }
    }

    /// `None`: turned away.
    pub fn enter(&self, shard: ShardId, class: Class) -> Option<Inside> {
        let door = self.door(shard);
        let most = (self.cap * class.share() / 100).max(1);
        let entered = door.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |inside| {
            (inside < most).then_some(inside + 1)
        });
        if entered.is_err() {
            metrics::counter!("tessera_shard_shed_total", "shard" => shard.to_string(), "class" => class.label())
                .increment(1);
            return None;
        }
        door.gauge.increment(1.0);
        Some(Inside(door))
    }

    fn door(&self, shard: ShardId) -> Arc<Door> {
        if let Some(door) = self.doors.read().unwrap_or_else(PoisonError::into_inner).get(&shard) {
            return Arc::clone(door);
        }
        let mut doors = self.doors.write().unwrap_or_else(PoisonError::into_inner);
        let door = doors.entry(shard).or_insert_with(|| {
            let gauge = metrics::gauge!("tessera_shard_in_flight", "shard" => shard.to_string());
            Arc::new(Door { inside: AtomicUsize::new(0), gauge })
        });
        Arc::clone(door)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.decrement(1.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ALL: [Class; 6] = [Class::P0, Class::P1, Class::P2, Class::P3, Class::P4, Class::P5];

    fn shard(number: i16) -> ShardId {
        ShardId::new(number).unwrap()
    }

    #[test]
    fn a_shard_fills_from_the_bottom_class_up_and_never_beyond_its_cap() {
        let admission = Admission::new(20);
        let mut inside = Vec::new();
        let mut total = Vec::new();
        for class in ALL.into_iter().rev() {
            while let Some(one) = admission.enter(shard(1), class) {
                inside.push(one);
            }
            total.push(inside.len());
        }
        assert_eq!(total, [4, 8, 12, 15, 18, 20]);
        assert!(admission.enter(shard(2), Class::P5).is_some(), "another shard does not notice");
        inside.truncate(17);
        let admitted: Vec<bool> = ALL.iter().map(|c| admission.enter(shard(1), *c).is_some()).collect();
        assert_eq!(admitted, [true, true, false, false, false, false]);
        drop(inside);
        assert!(admission.enter(shard(1), Class::P5).is_some());
    }

    #[test]
    fn the_smallest_cap_lets_every_class_in_alone() {
        let admission = Admission::new(1);
        assert!(ALL.iter().all(|class| admission.enter(shard(1), *class).is_some()));
        let _one = admission.enter(shard(1), Class::P5).unwrap();
        assert!(admission.enter(shard(1), Class::P0).is_none());
    }
}
