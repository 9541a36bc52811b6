//! The cut of the trials that runs every time: seeded moves, nine deaths, and faults that the checker must find.
#![allow(clippy::unwrap_used, missing_docs)]

use devcluster::ClusterSpec;
use libtest_mimic::{Arguments, Trial};
use move_trials::drill::{Drill, Ending, Plant, Victim};
use move_trials::{History, Load, Stage, Verdict};
use shard_router::moves::Step;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const BUCKETS: std::ops::Range<i32> = 0..64;
const COUNTERS: i32 = 3;
const RATE: f64 = 60.0;

/// One cluster for every trial, one after the other.
struct Field {
    stage: Arc<Stage>,
    history: Arc<History>,
    loads: u64,
}

impl Field {
    async fn start() -> Self {
        let stage = Stage::start(ClusterSpec::default().replicas(1), BUCKETS, COUNTERS).await.unwrap();
        Self { stage: Arc::new(stage), history: Arc::new(History::new(BUCKETS, COUNTERS)), loads: 0 }
    }

    /// A drill under load, and what the checker says: it must be nothing, unless faults were planted.
    async fn run(&mut self, drill: Drill, plant: Option<Plant>) -> (Verdict, usize) {
        self.loads += 1;
        let fresh = self.stage.router(&format!("fresh-{}", self.loads), false).await.unwrap();
        let stale = self.stage.router(&format!("stale-{}", self.loads), true).await.unwrap();
        let history = Arc::clone(&self.history);
        let load = Load::start(vec![fresh, stale], history, BUCKETS, COUNTERS, (RATE, self.loads));
        while load.count() < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let outcome = drill.carry_out(&self.stage, plant).await;
        let seen = load.stop().await.unwrap();
        let verdict = self.history.check(&self.stage).await.unwrap();
        let report = outcome.unwrap_or_else(|error| panic!("{drill:?}: {error}; {verdict:?}"));
        println!("{drill:?} {report:?}");
        (verdict, seen.failed())
    }

    async fn whole_range(&self, ending: Ending) -> Drill {
        let drill = Drill::seeded(&self.stage, 0..16, 0).await.unwrap();
        Drill { ending, crash: None, ..drill }
    }
}

async fn seeded_moves(field: &mut Field) {
    for seed in 1..=8 {
        let drill = Drill::seeded(&field.stage, BUCKETS, seed).await.unwrap();
        let (verdict, _) = field.run(drill, None).await;
        assert!(verdict.is_clean(), "{verdict:?}");
    }
}
