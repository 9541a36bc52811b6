//! `shardctl` as an operator runs it.

use crate::world::{Servers, World};
use serde_json::{Value, json};
use std::process::{Command, Output};

fn shardctl(world: &World, arguments: &[&str]) -> Output {
    let directory = format!("{}/{}", world.directory, world.directory.dbname);
    Command::new(env!("CARGO_BIN_EXE_shardctl"))
        .args(["--directory", &directory, "--secrets", world.secrets.to_str().unwrap()])
        .args(["--admin-user", &world.admin.user])
        .args(arguments)
        .output()
        .unwrap()
}

pub async fn shardctl_looks_and_bootstraps(servers: &Servers) {
    let world = World::empty(servers, "shardctl").await;
    let before = shardctl(&world, &["status"]);
    assert_eq!(before.status.code(), Some(1), "{before:?}");

    let name = &world.directory.dbname;
    let first = format!("1={}/{name},replicas={}/{name}", world.shards[0], world.replicas[0]);
    let second = format!("2={}/{name}", world.shards[1]);
    for _ in 0..2 {
        let done = shardctl(&world, &["bootstrap", "--shard", &first, "--shard", &second]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let status = shardctl(&world, &["status", "--json"]);
    assert!(status.status.success(), "{status:?}");
    let json: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(json["shards"][0]["report"]["buckets"]["A"], 8192, "{json}");
    assert_eq!(json["shards"][1]["report"]["schema_matches"], true, "{json}");

    let map = shardctl(&world, &["map", "8192"]);
    assert_eq!(String::from_utf8_lossy(&map.stdout), "bucket 8192  shard 2  epoch 1\n");
    assert_eq!(shardctl(&world, &["map", "16384"]).status.code(), Some(2));
    let help = shardctl(&world, &["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes:"));
}

/// Runs a verb, and says how it ended and what its last line was.
fn ran(world: &World, arguments: &[&str]) -> (i32, Value) {
    let output = shardctl(world, &[&["--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap());
    let code = output.status.code().unwrap_or(-1);
    assert!(code != 1, "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    (code, last)
}

pub async fn shardctl_moves_a_range_there_and_back(servers: &Servers) {
    let world = World::new(servers, "shardctl_moves").await;
    let (code, plan) = ran(&world, &["plan", "--weight", "2=3", "--most", "2"]);
    assert_eq!((code, plan["proposals"].as_array().unwrap().len()), (0, 2), "{plan}");
    assert_eq!(plan["move_ids"], json!([]));

    let (code, moved) = ran(&world, &["move", "0-63", "--to", "2"]);
    assert_eq!((code, &moved["state"], &moved["verified"]), (0, &json!("soaking"), &json!(true)), "{moved}");
    let id = moved["id"].to_string();
    assert_eq!(ran(&world, &["map", "63"]).1, json!({ "bucket": 63, "shard_id": 2, "epoch": 2 }));
    assert_eq!(ran(&world, &["verify", &id]).0, 0);
    assert_eq!(ran(&world, &["abort", &id]).0, 3, "it has been decided");
    assert_eq!(ran(&world, &["clean", &id]).0, 3, "it has not soaked for a day");
    assert_eq!(ran(&world, &["move", "60-70", "--to", "2"]).0, 3, "not all on one shard");
    let (code, back) = ran(&world, &["rollback", &id]);
    assert_eq!((code, &back["state"]), (0, &json!("rolled_back")), "{back}");
    assert_eq!(ran(&world, &["map", "63"]).1, json!({ "bucket": 63, "shard_id": 1, "epoch": 3 }));
    assert_eq!(ran(&world, &["rollback", &id]).0, 3);

    let (code, drained) = ran(&world, &["drain-shard", "2", "--most", "1", "--write"]);
    let id = drained["move_ids"][0].to_string();
    assert_eq!(code, 0);
    assert_eq!(ran(&world, &["pause", &id]).1["paused"], json!(true));
    assert_eq!(ran(&world, &["move", "--id", &id]).0, 6, "it is paused");
    assert_eq!(ran(&world, &["resume", &id]).0, 0);
    assert_eq!(ran(&world, &["controller", "--until-idle", "--clean-after-h", "0"]).0, 0);
    let (_, moves) = ran(&world, &["moves"]);
    assert_eq!(moves[0]["state"], json!("done"), "{moves}");
}

/// The process is gone at the worst moments; somebody else clears up.
pub async fn shardctl_recovers_what_a_dead_mover_left(servers: &Servers) {
    let world = World::new(servers, "shardctl_recover").await;
    let dies = |step: &str, range: &str| {
        let ended = shardctl(&world, &["move", range, "--to", "2", "--die-after", step]);
        assert!(!ended.status.success(), "{ended:?}");
    };
    let state = |range_owner: &str| ran(&world, &["map", range_owner]).1["shard_id"].clone();
    dies("fenced", "0-15");
    assert_eq!(ran(&world, &["recover"]).0, 0);
    let (_, moves) = ran(&world, &["moves"]);
    assert_eq!((&moves[0]["state"], state("0")), (&json!("copying"), json!(1)), "{moves}");
    let fenced = "SELECT count(*) FROM meta.bucket_owner WHERE state <> 'A' AND bucket < 8192";
    let count: i64 = sqlx::query_scalar(fenced).fetch_one(&mut world.on_shard(1).await).await.unwrap();
    assert_eq!(count, 0, "recovery lifts the fence");
    assert_eq!(ran(&world, &["abort", &moves[0]["id"].to_string()]).1["state"], json!("aborted"));

    dies("decided", "16-31");
    assert_eq!(ran(&world, &["recover"]).0, 0);
    let (_, moves) = ran(&world, &["moves"]);
    assert_eq!((&moves[0]["state"], state("16")), (&json!("soaking"), json!(2)), "{moves}");
    assert_eq!(ran(&world, &["recover"]).1, json!([]), "nothing is left to do");
    assert_eq!(
        ran(&world, &["clean", &moves[0]["id"].to_string(), "--soaked-h", "0"]).1["state"],
        json!("done")
    );
}

/// A shard that is restored to a moment before a move would serve what it gave away. Quarantine, then the directory's word.
pub async fn a_restored_shard_serves_only_what_is_its_own(servers: &Servers) {
    let world = World::new(servers, "shardctl_quarantine").await;
    let (code, moved) = ran(&world, &["move", "0-15", "--to", "2"]);
    assert_eq!(code, 0, "{moved}");
    assert_eq!(ran(&world, &["clean", &moved["id"].to_string(), "--soaked-h", "0"]).0, 0);
    // The moment before the move, as a backup would bring it back on the source; and on the target, which lacks the rows.
    let mut first = world.on_shard(1).await;
    let before = "UPDATE meta.bucket_owner SET state = 'A', epoch = 1, moved_to = NULL WHERE bucket < 16";
    sqlx::query(before).execute(&mut first).await.unwrap();
    assert_eq!(ran(&world, &["reconcile", "1"]).0, 3, "it is not in quarantine");
    assert_eq!(ran(&world, &["quarantine", "1"]).1["buckets"], json!(8192));
    let active = "SELECT count(*) FROM meta.bucket_owner WHERE state = 'A'";
    assert_eq!(sqlx::query_scalar::<_, i64>(active).fetch_one(&mut first).await.unwrap(), 0);
    assert_eq!(ran(&world, &["quarantine", "1"]).1["buckets"], json!(0), "again is no harm");
    let (code, found) = ran(&world, &["reconcile", "1"]);
    assert_eq!((code, &found["active"], &found["moved"]), (0, &json!(8176), &json!(8208)), "{found}");
    assert_eq!(
        ran(&world, &["map", "16"]).1["epoch"],
        json!(2),
        "zombies of the time before find newer epochs"
    );

    let mut second = world.on_shard(2).await;
    let before = "UPDATE meta.bucket_owner SET state = 'I', epoch = 1 WHERE bucket < 16";
    sqlx::query(before).execute(&mut second).await.unwrap();
    assert_eq!(ran(&world, &["quarantine", "2"]).0, 0);
    let output = shardctl(&world, &["--json", "reconcile", "2"]);
    assert_eq!(output.status.code(), Some(1), "not everything can be served");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["active"], found["missing"].as_array().unwrap().len()), (&json!(8192), 16), "{found}");
}
