//! `shardctl` as an operator runs it.

use crate::world::{Servers, World};
use serde_json::Value;
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
