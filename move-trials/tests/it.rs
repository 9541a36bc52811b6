//! The cut of the trials that runs every time: seeded moves, nine deaths, and faults that the checker must find.
#![allow(clippy::unwrap_used, missing_docs)]

use devcluster::ClusterSpec;
use libtest_mimic::{Arguments, Trial};
use move_trials::drill::{Drill, DrillReport, Ending, Plant, Victim};
use move_trials::failover::{FAILOVERS, REPLICAS, wait_well};
use move_trials::{History, Load, Problem, Stage, Verdict};
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
    async fn with_replicas(replicas: u16) -> Self {
        let stage = Stage::start(ClusterSpec::default().replicas(replicas), BUCKETS, COUNTERS).await.unwrap();
        Self { stage: Arc::new(stage), history: Arc::new(History::new(BUCKETS, COUNTERS)), loads: 0 }
    }

    /// A drill under load, and what the checker says: it must be nothing, unless faults were planted.
    async fn run(&mut self, drill: Drill, plant: Option<Plant>) -> (Verdict, usize) {
        let (outcome, verdict) = self.try_run(drill, plant).await;
        let (report, failed) = outcome.unwrap_or_else(|error| panic!("{drill:?}: {error}; {verdict:?}"));
        println!("{drill:?} {report:?}");
        (verdict, failed)
    }

    async fn try_run(
        &mut self,
        drill: Drill,
        plant: Option<Plant>,
    ) -> (Result<(DrillReport, usize), Problem>, Verdict) {
        self.loads += 1;
        let fresh = self.stage.router(&format!("fresh-{}", self.loads), false).await.unwrap();
        // A router that never hears of the directory again cannot find a primary that was promoted.
        let stale = self.stage.router(&format!("stale-{}", self.loads), !drill.for_good).await.unwrap();
        let history = Arc::clone(&self.history);
        let load = Load::start(vec![fresh, stale], history, BUCKETS, COUNTERS, (RATE, self.loads));
        while load.count() < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let outcome = drill.carry_out(&self.stage, plant).await;
        if drill.for_good && outcome.is_ok() {
            wait_well(&load, &drill).await.unwrap();
        }
        let seen = load.stop().await.unwrap();
        let verdict = self.history.check(&self.stage).await.unwrap();
        (outcome.map(|report| (report, seen.failed())), verdict)
    }

    async fn drill(&self, seed: u64, ending: Ending, crash: Option<(Step, Victim)>) -> Drill {
        let drill = Drill::seeded(&self.stage, BUCKETS, seed).await.unwrap();
        Drill { ending, crash, ..drill }
    }

    /// A move during which something is done that no mover would do, on the range's first bucket.
    async fn planted(
        &mut self,
        step: Step,
        fault: impl Fn(&Drill) -> (u16, String) + Send + Sync + 'static,
    ) -> Verdict {
        let drill = self.drill(0, Ending::Clean, None).await;
        let stage = Arc::clone(&self.stage);
        let plant: Plant = Box::new(move |reached| {
            if reached == step {
                let (shard, sql) = fault(&drill);
                let done = tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(stage.sabotage(shard, &sql, true))
                });
                done.unwrap();
            }
        });
        self.run(drill, Some(plant)).await.0
    }
}

/// Eight moves, each from its own seed: clean, back, or given up. Nothing is wrong afterwards, and no node would
/// have answered 503.
async fn seeded_moves(field: &mut Field) {
    for seed in 1..=8 {
        let drill = Drill::seeded(&field.stage, BUCKETS, seed).await.unwrap();
        let (verdict, failed) = field.run(drill, None).await;
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(failed, 0, "a client was told 503");
    }
}

/// Nine deaths; all of them are in `move-trials crashes`.
async fn deaths(field: &mut Field) {
    let points = [
        (Step::StreamMade, Victim::Target),
        (Step::Copied, Victim::Directory),
        (Step::FenceDecided, Victim::Mover),
        (Step::Fenced, Victim::Source),
        (Step::Drained, Victim::Mover),
        (Step::MarkerArrived, Victim::Target),
        (Step::Decided, Victim::Mover),
        (Step::Activated, Victim::Source),
        (Step::SourceMoved, Victim::Target),
    ];
    for (number, crash) in points.into_iter().enumerate() {
        let ending = if number % 2 == 0 { Ending::Clean } else { Ending::Rollback };
        let drill = field.drill(number as u64, ending, Some(crash)).await;
        let (verdict, _) = field.run(drill, None).await;
        assert!(verdict.is_clean(), "{crash:?}: {verdict:?}");
    }
}

/// Two failovers; all of them are in `move-trials failovers`. The source inside the window, and the target in the soak.
async fn failovers(field: &mut Field) {
    let version = field.stage.version().await.unwrap();
    let chosen = [(Step::Fenced, Victim::Source), (Step::Soaking, Victim::Target)];
    for failover in
        FAILOVERS.into_iter().filter(|failover| chosen.contains(&(failover.step, failover.victim)))
    {
        let drill = failover.drill(field.drill(1, Ending::Clean, None).await);
        let (outcome, verdict) = field.try_run(drill, None).await;
        assert!(verdict.is_clean(), "{failover:?}: {verdict:?}");
        failover.judge(&outcome.unwrap().0, version).unwrap();
    }
}

/// What stands in a subscription, and so in backups, reads what is moved, and nothing else.
async fn streams_have_a_role_of_their_own(field: &mut Field) {
    const RIGHTS: &str = "DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_subscription WHERE subconninfo NOT LIKE '%user=''tessera_stream''%') THEN
            RAISE EXCEPTION 'a subscription logs in as somebody else'; END IF;
        IF EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('meta', 'shard', 'trial') AND (
                       has_table_privilege('tessera_stream', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
                       OR has_table_privilege('tessera_stream', c.oid, 'SELECT')
                          AND c.relname <> 'move_marker' AND NOT EXISTS (
                              SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'owner_check'))) THEN
            RAISE EXCEPTION 'the role of the streams may do more than it has to'; END IF;
        END $$";
    let drill = field.drill(2, Ending::Clean, None).await;
    let stage = Arc::clone(&field.stage);
    let plant: Plant = Box::new(move |reached| {
        if matches!(reached, Step::Copied | Step::Soaking) {
            for shard in [drill.from, drill.to] {
                let done = tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(stage.sabotage(shard, RIGHTS, false))
                });
                done.unwrap();
            }
        }
    });
    let (verdict, _) = field.run(drill, Some(plant)).await;
    assert!(verdict.is_clean(), "{verdict:?}");
}

/// What preflight finds. With `*` the move's own subscription could acknowledge a fence, and a standby that is away could
/// be promoted without it.
async fn unfit_servers_are_refused(field: &mut Field) {
    let drill = field.drill(1, Ending::Clean, None).await;
    let mover = field.stage.mover(Arc::new(()));
    // What is set so counts instead of what is in the file that devcluster wrote.
    let names = "ALTER SYSTEM SET synchronous_standby_names =";
    let faults = [
        ("ALTER ROLE tessera_stream NOLOGIN".to_owned(), "role tessera_stream cannot log in"),
        ("ALTER ROLE tessera_stream LOGIN NOREPLICATION".to_owned(), "tessera_stream lacks REPLICATION"),
        (format!("{names} '*'"), "synchronous_standby_names has a *"),
        (format!("{names} 'elsewhere'"), "elsewhere does not stream"),
    ];
    for (fault, why) in faults {
        for sql in [fault.as_str(), "SELECT pg_reload_conf()"] {
            field.stage.sabotage(drill.to, sql, false).await.unwrap();
        }
        let set = fault.strip_prefix(names).map_or("", |value| value.trim_matches([' ', '\'']));
        let asked = "SELECT current_setting('synchronous_standby_names') = $1";
        while !sqlx::query_scalar::<_, bool>(asked)
            .bind(set)
            .fetch_one(&mut field.stage.on_shard(drill.to).await.unwrap())
            .await
            .unwrap()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let refused = drill.carry_out(&field.stage, None).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        // With a standby that is not there nothing commits any more.
        if set != "elsewhere" {
            for open in mover.open_moves().await.unwrap() {
                mover.abort(open.id).await.unwrap();
            }
        }
    }
}

/// What a missing drain or a node past the fence would do: a write is acknowledged by the source, and stays there.
async fn a_write_past_the_fence_is_found(field: &mut Field) {
    let history = Arc::clone(&field.history);
    let verdict = field
        .planted(Step::ForwardDropped, move |drill| {
            history.acknowledge(drill.lo, -9);
            (drill.from, format!("INSERT INTO trial.op (bucket, seq) VALUES ({}, -9)", drill.lo))
        })
        .await;
    assert_eq!(verdict.lost.len(), 1, "{verdict:?}");
}

/// A copy that lacks a row is found by the exact comparison, and the range goes back with everything written since.
async fn a_copy_that_differs_goes_back(field: &mut Field) {
    let drill = field.drill(0, Ending::Clean, None).await;
    let (stage, lo) = (Arc::clone(&field.stage), drill.lo);
    let plant: Plant = Box::new(move |reached| {
        if reached == Step::CaughtUp {
            let sql = format!("DELETE FROM trial.counter WHERE bucket = {lo} AND id = 1");
            let done = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(stage.sabotage(drill.to, &sql, true))
            });
            done.unwrap();
        }
    });
    let (outcome, verdict) = field.try_run(drill, Some(plant)).await;
    let told = outcome.unwrap_err().to_string();
    assert!(told.contains("trial.counter bucket"), "{told}");
    let owners: Vec<i16> = sqlx::query_scalar(
        "SELECT DISTINCT shard_id FROM directory.bucket_map WHERE bucket BETWEEN $1 AND $2",
    )
    .bind(drill.lo)
    .bind(drill.hi)
    .fetch_all(&mut field.stage.on_directory().await.unwrap())
    .await
    .unwrap();
    assert_eq!(owners, [i16::try_from(drill.from).unwrap()]);
    assert!(
        verdict.lost.is_empty() && verdict.ghosts.is_empty() && verdict.misplaced.is_empty(),
        "{verdict:?}"
    );
    // While the target was the owner, the missing row was missing to everybody: that is what the comparison limits.
    let missed = |report: &String| report.contains(&format!("counter ({}, 1)", drill.lo));
    assert!(verdict.stale_reads.iter().all(missed), "{verdict:?}");
    assert!(verdict.miscounted.is_empty(), "{verdict:?}");
}

/// What a lost row looks like, wherever it was lost.
async fn a_lost_row_is_found(field: &mut Field) {
    let verdict = field
        .planted(Step::Soaking, |drill| {
            let lost = "DELETE FROM trial.op WHERE (bucket, seq) IN
                (SELECT bucket, seq FROM trial.op WHERE bucket BETWEEN";
            (drill.to, format!("{lost} {} AND {} ORDER BY seq LIMIT 1)", drill.lo, drill.hi))
        })
        .await;
    assert_eq!(verdict.lost.len(), 1, "{verdict:?}");
}

/// What a row looks like that came twice, or from nowhere.
async fn a_ghost_is_found(field: &mut Field) {
    let verdict = field
        .planted(Step::Soaking, |drill| {
            (drill.to, format!("INSERT INTO trial.op (bucket, seq) VALUES ({}, -7)", drill.lo))
        })
        .await;
    assert_eq!(verdict.ghosts.len(), 1, "{verdict:?}");
}

/// What a zombie without epochs would do: the source takes the range up again, and a stale node writes there.
async fn two_owners_are_found(field: &mut Field) {
    let verdict = field
        .planted(Step::RowsDeleted, |drill| {
            let Drill { lo, hi, .. } = drill;
            (
                drill.from,
                format!("UPDATE meta.bucket_owner SET state = 'A' WHERE bucket BETWEEN {lo} AND {hi}"),
            )
        })
        .await;
    assert!(!verdict.misplaced.is_empty(), "{verdict:?}");
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    type Shared = Arc<Mutex<Option<Field>>>;
    let runtime = Arc::new(tokio::runtime::Runtime::new().expect("threads"));
    let field: Shared = Arc::default();
    macro_rules! trials {
        ($($name:ident: $fresh:literal, $replicas:expr;)*) => {
            vec![$({
                let (field, runtime) = (Arc::clone(&field), Arc::clone(&runtime));
                Trial::test(stringify!($name), move || {
                    let mut field = field.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    runtime.block_on(async {
                        // What a planted fault leaves behind is nothing to go on with.
                        let mut here = match field.take() {
                            Some(here) if !$fresh => here,
                            _ => Field::with_replicas($replicas).await,
                        };
                        $name(&mut here).await;
                        if !$fresh {
                            *field = Some(here);
                        }
                    });
                    Ok(())
                })
            }),*]
        };
    }
    let trials = trials![
        seeded_moves: false, 1;
        deaths: false, 1;
        streams_have_a_role_of_their_own: false, 1;
        unfit_servers_are_refused: true, 1;
        failovers: true, REPLICAS;
        a_write_past_the_fence_is_found: true, 1;
        a_copy_that_differs_goes_back: true, 1;
        a_lost_row_is_found: true, 1;
        a_ghost_is_found: true, 1;
        two_owners_are_found: true, 1;
    ];
    let arguments = Arguments { test_threads: Some(1), ..arguments };
    let conclusion = libtest_mimic::run(&arguments, trials);
    runtime.block_on(async { drop(field.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()) });
    conclusion.exit_code()
}
