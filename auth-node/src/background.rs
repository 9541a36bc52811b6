//! What a node does besides answering: a look at the clock, keys by time, keys ahead of time, sweeping, metrics upkeep.
use std::time::Duration;

use crate::app::App;

const KEY_REBUILD: Duration = Duration::from_secs(1);
const CLOCK: Duration = Duration::from_secs(1);
const HORIZON: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(600);
const UPKEEP: Duration = Duration::from_secs(5);

/// Makes sure that there is a key to sign with before the node listens, as far as the directory lets us.
pub async fn first_keys(app: &App) {
    if let Err(error) = app.keys.ensure_horizon().await {
        tracing::warn!(%error, "signing keys were not looked after; the known ones go on");
    }
    app.keys.rebuild();
}

/// Starts the tasks; they end with the process.
pub fn start(app: &App) {
    let keys = app.clone();
    tokio::spawn(async move {
        loop {
            pause(KEY_REBUILD).await;
            keys.keys.rebuild();
        }
    });
    let clock = app.clone();
    tokio::spawn(async move {
        loop {
            pause(CLOCK).await;
            clock.check_clock();
        }
    });
    let ahead = app.clone();
    tokio::spawn(async move {
        loop {
            pause(HORIZON).await;
            first_keys(&ahead).await;
        }
    });
    let sweeper = app.clone();
    tokio::spawn(async move {
        loop {
            pause(SWEEP).await;
            let swept = sweeper.store.scatter_sweep().await;
            tracing::info!(
                rows = swept.rows,
                partitions = swept.partitions,
                failed = swept.failed.len(),
                "swept"
            );
        }
    });
    let metrics = app.clone();
    tokio::spawn(async move {
        loop {
            pause(UPKEEP).await;
            metrics.metrics.run_upkeep();
        }
    });
}

/// With a tenth of jitter, so that nodes started together do not act together.
async fn pause(period: Duration) {
    tokio::time::sleep(period.mul_f64(rand::random_range(0.9..1.1))).await;
}
