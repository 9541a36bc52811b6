//! A gateway that runs a file of `docs/gateways` word for word, but for its port numbers.
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::world::{Answer, World, eventually};

/// The port numbers that stand in the files: the gateway, what Traefik asks itself by, the service, the two nodes.
const WRITTEN: [u16; 5] = [8080, 8082, 8081, 3002, 3012];

/// Runs a program until its own input ends: when we drop it, and when we are killed, too.
const GUARD: &str = r#""$@" </dev/null & program=$!; cat >/dev/null; kill -KILL "$program"; wait "$program""#;

/// What such a file may leave to the http block around it. Without a privilege nginx cannot write to its own folders.
const NGINX: &str = "pid nginx.pid;\nevents {}\nhttp {\n    access_log off;\n    client_body_temp_path body;\n    \
    proxy_temp_path proxy;\n    fastcgi_temp_path fastcgi;\n    uwsgi_temp_path uwsgi;\n    scgi_temp_path scgi;\n    \
    include nginx.conf;\n}\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Traefik,
    Caddy,
    EnvoyExtAuthz,
    EnvoyJwt,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::EnvoyExtAuthz => "envoy",
            Self::EnvoyJwt => "envoy_jwt",
        }
    }

    /// The first one is what the program is given.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx.conf"],
            Self::Traefik => &["traefik.yml", "traefik-dynamic.yml"],
            Self::Caddy => &["Caddyfile"],
            Self::EnvoyExtAuthz => &["envoy-ext-authz.yaml"],
            Self::EnvoyJwt => &["envoy-jwt.yaml"],
        }
    }

    fn program(self) -> PathBuf {
        let tools = root().join(".tessera/tools/gateways");
        match self {
            Self::Nginx => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
                folders.map(|folder| folder.join("nginx")).find(|file| file.is_file()).unwrap_or_default()
            }
            Self::Traefik => tools.join("bin/traefik"),
            Self::Caddy => tools.join("bin/caddy"),
            Self::EnvoyExtAuthz | Self::EnvoyJwt => tools.join("envoy/_bin/envoy"),
        }
    }

    /// Why the program cannot be run here.
    pub fn missing(self) -> Option<String> {
        let how = if self == Self::Nginx { "install nginx-light" } else { "run `make tools`" };
        (!self.program().is_file()).then(|| format!("{} is not there: {how}", self.name()))
    }

    fn arguments(self, folder: &Path) -> Vec<String> {
        let file = folder.join(self.files()[0]).display().to_string();
        let arguments: &[&str] = match self {
            Self::Nginx => {
                std::fs::write(folder.join("main.conf"), NGINX).expect("nginx's main file is written");
                // One process: nothing is left when it is killed.
                let (folder, main) = (folder.display().to_string(), folder.join("main.conf"));
                let one = "daemon off; master_process off;";
                return ["-p", &folder, "-e", "stderr", "-c", &main.display().to_string(), "-g", one]
                    .map(str::to_owned)
                    .into();
            }
            Self::Traefik => return vec![format!("--configFile={file}")],
            Self::Caddy => &["run", "--adapter", "caddyfile", "--config", &file],
            Self::EnvoyExtAuthz | Self::EnvoyJwt => {
                &["-c", &file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
            }
        };
        arguments.iter().map(|argument| (*argument).to_owned()).collect()
    }
}

/// Where a gateway's neighbours listen.
#[derive(Debug, Clone, Copy)]
pub struct Neighbours {
    pub service: u16,
    pub nodes: [u16; 2],
}

/// A running gateway; dropping it ends it.
pub struct Gateway {
    pub url: String,
    guard: Child,
    folder: TempDir,
}

impl Gateway {
    /// Starts it on spare ports, with words of its file changed beforehand where a test needs that.
    pub fn start(world: &World, kind: Kind, near: Neighbours, changes: &[(&str, String)]) -> Self {
        // Inside the cluster's, which goes whatever becomes of us.
        let folder = tempfile::tempdir_in(world.cluster.home().root()).expect("a folder for the gateway");
        let spare = || world.cluster.spare_port().expect("a spare port");
        let port = spare();
        let ports = [port, spare(), near.service, near.nodes[0], near.nodes[1]];
        for name in kind.files() {
            let mut text = std::fs::read_to_string(root().join("docs/gateways").join(name))
                .expect("the documented file");
            for (from, to) in changes {
                assert!(text.contains(from), "{name} does not say {from:?} any more");
                text = text.replace(from, to);
            }
            std::fs::write(folder.path().join(name), renumber(&text, ports)).expect("the file is written");
        }
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).arg(kind.program()).args(kind.arguments(folder.path()));
        command.current_dir(folder.path()).envs([("XDG_CONFIG_HOME", "."), ("XDG_DATA_HOME", ".")]);
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        // In a group of its own: Ctrl-C ends us, and the guard sees that.
        let guard = command.process_group(0).spawn().expect("sh runs");
        Self { url: format!("http://127.0.0.1:{port}"), guard, folder }
    }

    /// Waits until it gives this answer to a request with this token.
    pub async fn until(&self, world: &World, token: Option<&str>, status: u16) {
        eventually("the gateway is up", || async {
            let request = world.http.get(&self.url);
            let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
            request.send().await.is_ok_and(|answer| answer.status() == status)
        })
        .await;
    }

    pub async fn get(&self, world: &World, token: &str) -> Answer {
        let request = world.http.get(format!("{}/orders", self.url)).bearer_auth(token);
        Answer::read(request.send().await.expect("an answer")).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ended = self.guard.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the gateway's last words\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The text with each written port changed to ours, in one go.
fn renumber(text: &str, ports: [u16; 5]) -> String {
    let mut renumbered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from_digit) = rest.split_at(start);
        let end = from_digit.find(|c: char| !c.is_ascii_digit()).unwrap_or(from_digit.len());
        let (digits, after) = from_digit.split_at(end);
        let known = WRITTEN.iter().position(|written| digits == written.to_string());
        renumbered += before;
        renumbered += &known.map_or_else(|| digits.to_owned(), |index| ports[index].to_string());
        rest = after;
    }
    renumbered + rest
}
