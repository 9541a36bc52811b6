//! `Tessera-Read-After`: reads from replicas that see what their client did.
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;

use crate::Suite;
use crate::world::{Answer, Session, World, eventually};

const HEADER: &str = "tessera-read-after";

pub fn add(suite: &mut Suite) {
    suite.add("own_writes_are_read_from_replicas", own_writes);
    suite.add("a_position_that_we_did_not_give_is_none", odd_ones);
}

async fn read(world: &World, path: &str, session: &Session, header: (&str, &str)) -> Answer {
    let request = world.http.get(format!("{}{path}", world.any_node())).bearer_auth(&session.access);
    let answer = request.header(header.0, header.1).send().await.expect("an answer");
    let answer = Answer::read(answer).await;
    world.announced.check(&Method::GET, path, &answer);
    answer.expect(200)
}

async fn rename(world: &World, session: &Session, name: &str) -> Answer {
    let body = json!({ "name": name });
    world.call(Method::PATCH, "/auth/v1/me", Some(&session.access), Some(body)).await.expect(200)
}

/// Positions that a replica had, in both nodes.
async fn served(world: &World) -> f64 {
    let mut served = 0.0;
    for node in [1, 2] {
        for outcome in ["known", "asked", "waited"] {
            let words = ["tessera_read_positions_total", &format!("outcome=\"{outcome}\"")];
            served += world.metric(node, &words).await;
        }
    }
    served
}

async fn own_writes(world: Arc<World>) {
    let session = world.new_session().await;
    let before = served(&world).await;
    for number in 0..20 {
        let name = format!("Ada {number}");
        let position = rename(&world, &session, &name).await.header(HEADER);
        assert_eq!(position.len(), 20, "{position}");
        let me = read(&world, "/auth/v1/me", &session, (HEADER, &position)).await;
        assert_eq!(me.str("/name"), name);
        let cookie = format!("__Host-tessera-read-after={position}");
        assert_eq!(read(&world, "/auth/v1/me", &session, ("cookie", &cookie)).await.str("/name"), name);
    }
    let second = world.login(&session.email).await;
    let ended_path = format!("/auth/v1/sessions/{}", second.id);
    let ended = world.call(Method::DELETE, &ended_path, Some(&session.access), None).await.expect(204);
    let position = ended.header(HEADER);
    let listed = read(&world, "/auth/v1/sessions", &session, (HEADER, &position)).await;
    assert_eq!(listed.body["sessions"].as_array().map(Vec::len), Some(1), "{:?}", listed.body);
    // A busy machine may keep a replica behind for a while; none of the reads above cared.
    eventually("a replica serves such a read", async || {
        let me = read(&world, "/auth/v1/me", &session, (HEADER, &position)).await;
        assert!(me.header(HEADER).is_empty(), "a read takes no position away");
        served(&world).await > before
    })
    .await;
    let gone = world.call(Method::DELETE, &ended_path, Some(&session.access), None).await.expect(404);
    assert_eq!(gone.header(HEADER).len(), 20, "the answer of the first call may have been lost");
}

async fn odd_ones(world: Arc<World>) {
    let session = world.new_session().await;
    let plain = world.get("/auth/v1/me", &session.access).await.expect(200);
    assert_eq!(plain.header(HEADER).len(), 20, "the primary says where it is");
    let cookie = plain.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-tessera-read-after=") && cookie.contains("; Secure; HttpOnly;"),
        "{cookie}"
    );
    for odd in ["", "x", "AQADAAAAAgAAABazdNhIAA", "AgADAAAAAgAAABazdNhI", "////////////////////"] {
        let answer = read(&world, "/auth/v1/me", &session, (HEADER, odd)).await;
        assert_eq!(answer.header(HEADER).len(), 20, "{odd:?} is none");
    }
    // A timeline or a shard that there is not: also the primary's.
    for foreign in ["AQAB_____wAAAAAAAAAA", "AQAJAAAAAQAAAAAAAAAA"] {
        let answer = read(&world, "/auth/v1/me", &session, (HEADER, foreign)).await;
        assert_eq!(answer.header(HEADER).len(), 20, "{foreign} is another log's");
    }
    let refused = world.get("/auth/v1/me", "nonsense").await.expect(401);
    assert!(refused.header(HEADER).is_empty());
}
