//! The library in a program of its own: one shard with a replica, alive until the program ends, however it ends.
//!
//! `cargo run -p devcluster --example own_cluster -- PATH_OF_DEVCLUSTER_EXECUTABLE`; prints the folder, waits for
//! standard input to end. The tests kill it and look for what it left behind.
use std::io::Read;

use devcluster::ClusterSpec;

#[tokio::main]
async fn main() -> devcluster::Result<()> {
    let mut spec = ClusterSpec::default().shards(1).nodes(0).redis(false);
    if let Some(guard) = std::env::args_os().nth(1) {
        spec = spec.guard(guard);
    }
    let cluster = spec.start().await?;
    println!("folder: {}", cluster.home().root().display());
    let _until_it_ends = std::io::stdin().read_to_end(&mut Vec::new());
    cluster.stop().await
}
