//! A node whose clock goes wrong: it grants nothing, then says that it is not ready, and comes back by itself.
//!
//! A third node on the same cluster, whose wall clock libfaketime moves by what stands in a file.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;

use crate::Suite;
use crate::world::{PASSWORD, World, eventually};

pub fn add(suite: &mut Suite) {
    let library = library();
    let missing = library.is_none().then(|| "libfaketime is not there: install faketime".to_owned());
    suite.add_unless("a_node_whose_clock_is_off_grants_nothing", missing, |world| async move {
        clock(world, library.expect("it is there")).await;
    });
}

/// Where Debian puts it, for whatever machine.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file())
}

struct Node {
    process: Child,
    folder: tempfile::TempDir,
    ports: [u16; 2],
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    fn start(world: &World, library: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = [(); 2].map(|()| world.cluster.spare_port().expect("a port"));
        std::fs::write(folder.path().join("clock"), "+0").expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_auth-node"));
        command.arg("--config").arg(world.cluster.home().node_config("node-1")).arg("serve");
        command.env("TESSERA_SERVER__LISTEN", format!("127.0.0.1:{}", ports[0]));
        command.env("TESSERA_SERVER__OPS_LISTEN", format!("127.0.0.1:{}", ports[1]));
        command.env("TESSERA_SERVER__STATE_DIR", folder.path().join("state"));
        // It goes by another name than node 1, whose configuration it has.
        command.env("TESSERA_SERVER__ALLOWED_HOSTS", format!("[\"127.0.0.1:{}\"]", ports[0]));
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", folder.path().join("clock"));
        let process = command.stdout(Stdio::null()).spawn().expect("auth-node starts");
        Self { process, folder, ports }
    }

    /// As one step: half a text would be another time.
    fn set(&self, offset: &str) {
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("clock"));
        std::fs::write(&new, offset).and_then(|()| std::fs::rename(new, file)).expect("written");
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    async fn is_ready(&self, world: &World) -> Option<bool> {
        let url = format!("http://127.0.0.1:{}/health/ready", self.ports[1]);
        Some(world.http.get(url).send().await.ok()?.status() == 200)
    }
}

async fn clock(world: Arc<World>, library: PathBuf) {
    let node = Node::start(&world, &library);
    eventually("the node is ready", || async { node.is_ready(&world).await == Some(true) }).await;
    let session = world.new_session().await;
    let url = node.url();
    let check = || world.call_at(&url, Method::GET, "/auth/verify", Some(&session.access), None);
    check().await.expect(200);
    // Ahead only: behind, a young cluster's first key is not valid yet, and that says the same.
    for offset in ["+10s", "+20s"] {
        node.set(offset);
        let other = world.new_session().await;
        eventually("it grants nothing", || async {
            let answer = world.refresh_at(&url, &other.refresh, None).await;
            assert!(matches!(answer.status.as_u16(), 200 | 429 | 503), "{:?}", answer.body);
            answer.status == 503
        })
        .await;
        let body = json!({"email": session.email, "password": PASSWORD});
        let login = world.call_at(&url, Method::POST, "/auth/v1/login", None, Some(body)).await;
        assert!(!login.header("retry-after").is_empty());
        login.expect_problem(503, "unavailable");
        check().await.expect(200);
        assert_eq!(node.is_ready(&world).await, Some(true), "what was granted is still checked here");
        node.set("+0");
        eventually("it grants again", || async {
            let fresh = world.login(&session.email).await;
            world.refresh_at(&url, &fresh.refresh, None).await.status == 200
        })
        .await;
    }
    node.set("+60s");
    eventually("it is not ready", || async { node.is_ready(&world).await == Some(false) }).await;
    // No token that lives is called expired, and no key that signs goes missing.
    check().await.expect_problem(503, "unavailable");
    let keys = world.call_at(&url, Method::GET, "/.well-known/jwks.json", None, None).await;
    keys.expect_problem(503, "unavailable");
    world.call_at(&url, Method::GET, "/health", None, None).await.expect(503);
    node.set("+0");
    eventually("it is ready again", || async { node.is_ready(&world).await == Some(true) }).await;
}
