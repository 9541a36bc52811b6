//! Contract tests against real PostgreSQL: a directory and two shards, each with a streaming replica.
//!
//! Every test works in databases of its own on those servers, so they run side by side.
#![allow(clippy::unwrap_used, missing_docs)]

mod backfill;
mod catalogue;
mod checks;
mod control;
mod ownership;
mod polling;
mod pools;
mod replicas;
mod rollout;
mod world;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::sync::Arc;
use world::Servers;

macro_rules! trials {
    ($servers:expr, $($module:ident :: $test:ident),* $(,)?) => {
        vec![$({
            let servers = Arc::clone(&$servers);
            Trial::test(concat!(stringify!($module), "::", stringify!($test)), move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                runtime.block_on($module::$test(&servers));
                Ok(())
            })
        }),*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    let servers = Arc::new(Servers::new());
    let trials = trials![
        servers,
        ownership::policies_answer_each_state,
        ownership::trigger_answers_whom_no_policy_binds,
        ownership::bucket_of_a_row_never_changes,
        ownership::replication_passes_the_trigger,
        ownership::gated_statements_tell_nothing_found_from_not_mine,
        ownership::application_role_cannot_take_ownership,
        catalogue::every_table_with_a_bucket_is_protected,
        catalogue::protect_refuses_a_key_that_does_not_start_with_the_bucket,
        polling::map_follows_the_directory,
        polling::boots_from_disk_while_the_directory_is_down,
        polling::without_directory_and_copy_says_so,
        polling::outage_changes_nothing_for_callers,
        polling::bad_sections_are_quarantined,
        polling::never_goes_backwards,
        polling::topology_changes_move_pools,
        polling::keys_are_written_once_and_distrust_reaches_shards,
        replicas::a_lagging_replica_is_ejected_and_comes_back,
        replicas::a_reader_with_a_position_waits_for_it_or_gets_the_primary,
        pools::a_cancelled_request_does_not_give_back_a_busy_connection,
        pools::limits_of_a_connection_and_a_checkout,
        pools::a_dead_shard_fails_fast_and_alone,
        pools::an_open_transaction_is_not_given_back,
        pools::lost_connections_open_the_breaker_and_a_trial_closes_it,
        checks::fingerprints_name_the_key,
        checks::altered_migrations_are_refused,
        checks::a_release_and_the_one_before_it_share_a_shard,
        rollout::a_canary_goes_first_and_a_failure_stops_the_waves,
        rollout::moves_and_rollouts_exclude_each_other,
        rollout::a_move_and_a_rollout_that_begin_at_once_are_put_in_order,
        rollout::a_lock_in_the_way_is_not_waited_for_long,
        rollout::an_index_is_built_beside_the_traffic,
        rollout::a_contraction_waits_to_be_asked_for,
        backfill::every_row_is_rewritten_once_by_its_owner,
        backfill::a_killed_worker_goes_on_where_it_was,
        backfill::a_bucket_that_leaves_meanwhile_is_done_where_it_went,
        backfill::replicas_set_the_pace,
        checks::bootstrap_may_be_repeated,
        control::shardctl_looks_and_bootstraps,
        control::shardctl_moves_a_range_there_and_back,
        control::a_restored_shard_serves_only_what_is_its_own,
        control::shardctl_recovers_what_a_dead_mover_left,
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    servers.stop();
    conclusion.exit_code()
}
