//! The refresh table (docs/refresh.md), row by row, from outside.
use std::sync::Arc;

use futures::future::join_all;

use crate::Suite;
use crate::world::{PASSWORD, Session, World, session};

const BACK: &str = "UPDATE shard.sessions SET rotated_at = rotated_at - interval '31 s' WHERE bucket = $bucket AND session_id = $session";

pub fn add(suite: &mut Suite) {
    suite.add("the_current_token_rotates", rotates);
    suite.add("a_lost_response_is_answered_with_the_same_successor", lost_response);
    suite.add("a_fourth_replay_is_a_storm_and_the_family_lives", storm);
    suite.add("a_late_replay_of_an_unbound_token_is_theft", late_unbound);
    suite.add("a_late_replay_of_a_bound_device_is_forgiven_once_in_eight", late_bound);
    suite.add("a_replay_with_another_device_is_theft", other_device);
    suite.add("two_accounts_on_one_device_do_not_disturb_each_other", two_accounts);
    suite.add("an_older_token_revokes_the_family", older);
    suite.add("a_forged_token_touches_nothing", forged);
    suite.add("idle_and_absolute_ends_are_kept", ends);
    suite.add("100_parallel_refreshes_over_two_nodes_leave_one_chain", parallel);
}

async fn rotates(world: Arc<World>) {
    let first = world.new_session().await;
    let mut token = first.refresh.clone();
    for _ in 0..5 {
        let next = world.refresh(&token, None).await.expect(200);
        assert_eq!(next.str("/session/id"), first.id);
        assert_eq!(next.str("/user/email"), first.email);
        assert_ne!(next.str("/refresh_token"), token);
        world.get("/auth/verify", &next.str("/access_token")).await.expect(200);
        token = next.str("/refresh_token");
    }
}

async fn lost_response(world: Arc<World>) {
    let first = world.new_session().await;
    let answer = world.refresh(&first.refresh, None).await.expect(200);
    for _ in 0..3 {
        let again = world.refresh(&first.refresh, None).await.expect(200);
        assert_eq!(again.str("/refresh_token"), answer.str("/refresh_token"));
        assert_ne!(again.str("/access_token"), answer.str("/access_token"));
    }
    world.refresh(&answer.str("/refresh_token"), None).await.expect(200);
}

async fn storm(world: Arc<World>) {
    let first = world.new_session().await;
    let next = world.refresh(&first.refresh, None).await.expect(200).str("/refresh_token");
    for _ in 0..3 {
        world.refresh(&first.refresh, None).await.expect(200);
    }
    for _ in 0..3 {
        let answer = world.refresh(&first.refresh, None).await.expect_problem(429, "rate-limited");
        // Waiting out the window would make an honest token a stolen one.
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds <= 5));
    }
    world.refresh(&next, None).await.expect(200);
}

async fn late_unbound(world: Arc<World>) {
    let first = world.new_session().await;
    let next = world.refresh(&first.refresh, None).await.expect(200);
    assert_eq!(world.sql_for(&first.access, BACK).await, 1);
    world.refresh(&first.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    world.refresh(&next.str("/refresh_token"), None).await.expect_problem(401, "invalid-refresh-token");
    world.get("/auth/verify", &next.str("/access_token")).await.expect_problem(401, "invalid-token");
}

/// A second login with the device secret of the first: the session is bound from the start.
async fn bound_session(world: &World) -> Session {
    let first = world.new_session().await;
    let device = first.device.expect("a first login issues a device secret");
    let answer =
        world.try_login(&first.email, PASSWORD, Some(&device), &world.new_address()).await.expect(200);
    assert_eq!(answer.header("tessera-device"), "", "a known device gets no new secret");
    Session { device: Some(device), ..session(&first.email, &answer) }
}

async fn late_bound(world: Arc<World>) {
    let first = bound_session(&world).await;
    let device = first.device.as_deref();
    let next = world.refresh(&first.refresh, device).await.expect(200).str("/refresh_token");
    world.sql_for(&first.access, BACK).await;
    let late = world.refresh(&first.refresh, device).await.expect(200);
    assert_eq!(late.str("/refresh_token"), next);
    // The next generations may not be late again.
    let third = world.refresh(&next, device).await.expect(200).str("/refresh_token");
    world.sql_for(&first.access, BACK).await;
    world.refresh(&next, device).await.expect_problem(401, "invalid-refresh-token");
    world.refresh(&third, device).await.expect_problem(401, "invalid-refresh-token");
}

async fn other_device(world: Arc<World>) {
    let first = bound_session(&world).await;
    let next = world.refresh(&first.refresh, first.device.as_deref()).await.expect(200).str("/refresh_token");
    world
        .refresh(&first.refresh, Some("AAAAAAAAAAAAAAAAAAAAAA"))
        .await
        .expect_problem(401, "invalid-refresh-token");
    world.refresh(&next, first.device.as_deref()).await.expect_problem(401, "invalid-refresh-token");
    // Device secrets are handed out for one account; logging in again still works.
    world.login(&first.email).await;
}

async fn two_accounts(world: Arc<World>) {
    let first = bound_session(&world).await;
    let device = first.device.as_deref();
    let other = world.register().await;
    let answer = world.try_login(&other, PASSWORD, device, &world.new_address()).await.expect(200);
    assert_eq!(answer.header("tessera-device"), "", "a device keeps its one secret");
    for token in [&first.refresh, &answer.str("/refresh_token")] {
        let next = world.refresh(token, device).await.expect(200);
        // The answer was lost: the same device asks again.
        let again = world.refresh(token, device).await.expect(200);
        assert_eq!(again.str("/refresh_token"), next.str("/refresh_token"));
    }
}

async fn older(world: Arc<World>) {
    let first = world.new_session().await;
    let second = world.refresh(&first.refresh, None).await.expect(200).str("/refresh_token");
    let third = world.refresh(&second, None).await.expect(200).str("/refresh_token");
    world.refresh(&first.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    world.refresh(&third, None).await.expect_problem(401, "invalid-refresh-token");
    let audited = "UPDATE shard.audit_head SET seq = seq WHERE EXISTS (SELECT 1 FROM shard.audit a \
                   WHERE a.bucket = $bucket AND a.user_id = $user AND a.event = 'refresh_reuse') AND bucket = $bucket";
    assert_eq!(world.sql_for(&first.access, audited).await, 1, "the reuse stands in the audit trail");
}

async fn forged(world: Arc<World>) {
    let victim = world.new_session().await;
    let good = victim.refresh.clone();
    let mut bytes = good.clone().into_bytes();
    let mut forgeries = vec![
        String::new(),
        "tsr_".into(),
        good[..good.len() - 1].into(),
        format!("{good}A"),
        good.replacen("tsr_", "tsr-", 1),
    ];
    for at in (4..bytes.len()).step_by(7) {
        let kept = bytes[at];
        bytes[at] = if kept == b'A' { b'B' } else { b'A' };
        forgeries.push(String::from_utf8_lossy(&bytes).into_owned());
        bytes[at] = kept;
    }
    for forged in &forgeries {
        world.refresh(forged, None).await.expect_problem(401, "invalid-refresh-token");
    }
    world.refresh(&good, None).await.expect(200);
}

async fn ends(world: Arc<World>) {
    let session = world.new_session().await;
    let end = "UPDATE shard.sessions SET expires_at = now() - interval '1 s' WHERE bucket = $bucket AND session_id = $session";
    assert_eq!(world.sql_for(&session.access, end).await, 1);
    world.refresh(&session.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    // A rotation moves the idle end, never beyond the absolute one.
    let session = world.new_session().await;
    let near = "UPDATE shard.sessions SET absolute_expires_at = now() + interval '1 h' WHERE bucket = $bucket AND session_id = $session";
    assert_eq!(world.sql_for(&session.access, near).await, 1);
    world.refresh(&session.refresh, None).await.expect(200);
    let kept = "UPDATE shard.sessions SET amr = amr WHERE bucket = $bucket AND session_id = $session AND expires_at = absolute_expires_at";
    assert_eq!(world.sql_for(&session.access, kept).await, 1);
}

/// 50 rounds, each of 100 clients with one and the same token, half of them at each node. An overloaded node may say
/// 503 and a storm is 429; nobody is told 401, all successors are one, and the chain goes on.
async fn parallel(world: Arc<World>) {
    let first = world.new_session().await;
    let mut token = first.refresh.clone();
    for round in 0..50 {
        let nodes = [world.node(1), world.node(2)];
        let calls = (0..100).map(|i| world.refresh_at(&nodes[i % 2], &token, None));
        let answers = join_all(calls).await;
        let mut successors: Vec<_> =
            answers.iter().filter(|a| a.status == 200).map(|a| a.str("/refresh_token")).collect();
        let refused: Vec<_> =
            answers.iter().filter(|a| !matches!(a.status.as_u16(), 200 | 429 | 503)).collect();
        assert!(refused.is_empty(), "round {round}: {refused:?}");
        assert!((1..=4).contains(&successors.len()), "round {round}: {} got a successor", successors.len());
        successors.sort();
        successors.dedup();
        assert_eq!(successors.len(), 1, "round {round}: the chain forked");
        token = successors.remove(0);
    }
    world.refresh(&token, None).await.expect(200);
}
