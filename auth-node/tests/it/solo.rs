//! A node of a test's own beside the cluster's two, with its own settings, over the cluster's data.
use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{Answer, World, eventually};

/// Killed when dropped.
pub struct Solo {
    child: Child,
    folder: TempDir,
    /// Its public address.
    pub url: String,
    /// Its ops address.
    pub ops: String,
    /// What it answers under: the cluster's one public name.
    host: String,
}

impl Solo {
    /// `settings` are environment variables without `TESSERA_`.
    pub async fn start(world: &World, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_auth-node"));
        command.arg("--config").arg(world.cluster.home().node_config("node-1")).arg("serve");
        command.env("TESSERA_SERVER__LISTEN", "127.0.0.1:0").env("TESSERA_SERVER__OPS_LISTEN", "127.0.0.1:0");
        command.env("TESSERA_SERVER__STATE_DIR", folder.path().join("state"));
        command.env("TESSERA_SERVER__DRAIN_GRACE_MS", "0");
        command.envs(settings.iter().map(|(key, value)| (format!("TESSERA_{key}"), value)));
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a second handle")).stdout(log);
        let child = command.spawn().expect("auth-node runs");
        let host = world.node(1).trim_start_matches("http://").to_owned();
        let mut solo = Self { child, folder, url: String::new(), ops: String::new(), host };
        let running = || async { solo.lines().iter().any(|line| line["message"] == "serving") };
        eventually("the node serves", running).await;
        let lines = solo.lines();
        let serving = lines.iter().find(|line| line["message"] == "serving").expect("it serves");
        let address = |key: &str| format!("http://{}", serving[key].as_str().expect("an address"));
        (solo.url, solo.ops) = (address("listen"), address("ops"));
        solo
    }

    /// A request to it, under the name that it knows as its own.
    pub fn request(&self, world: &World, method: Method, path: &str) -> RequestBuilder {
        world.http.request(method, format!("{}{path}", self.url)).header("host", &self.host)
    }

    pub async fn get(&self, world: &World, path: &str) -> Answer {
        Answer::read(self.request(world, Method::GET, path).send().await.expect("an answer")).await
    }

    pub async fn metrics(&self, world: &World) -> String {
        let answer = world.http.get(format!("{}/metrics", self.ops)).send().await.expect("metrics");
        answer.text().await.expect("text")
    }

    /// All that it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The same, line by line; what is no JSON is left out.
    pub fn lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let mut ended = None;
        let child = &mut self.child;
        eventually("the node ends", || {
            ended = child.try_wait().expect("its status");
            std::future::ready(ended.is_some())
        })
        .await;
        ended.expect("it ended")
    }
}

impl Drop for Solo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
