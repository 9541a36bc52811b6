//! A real receiver of OTLP, rotel, and what it printed.
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::world::eventually;

/// Killed when dropped.
pub struct Collector {
    child: Child,
    folder: TempDir,
    /// For `telemetry.otlp_endpoint`.
    pub endpoint: String,
}

/// A span as the receiver understood it.
#[derive(Debug, Clone, Default)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: String,
    pub status: String,
    pub attributes: BTreeMap<String, String>,
    /// The trace that it points to.
    pub linked: String,
}

impl Span {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// Why there is none, where `make tools` did not bring it.
pub fn missing() -> Option<String> {
    (!program().is_file()).then(|| "rotel is not there: run `make tools`".to_owned())
}

fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    root.join(".tessera/tools/otlp/rotel/rotel-agent")
}

impl Collector {
    pub async fn start() -> Self {
        for _ in 0..10 {
            let (http, grpc) = free_ports();
            let folder = tempfile::tempdir().expect("a folder");
            let mut child = rotel(&folder, http, grpc);
            let mut up = false;
            eventually("rotel listens, or has ended because somebody took its port", || {
                up = TcpStream::connect(("127.0.0.1", http)).is_ok();
                let ended = child.try_wait().expect("its status").is_some();
                up &= !ended;
                std::future::ready(up || ended)
            })
            .await;
            if up {
                return Self { child, folder, endpoint: format!("http://127.0.0.1:{http}") };
            }
        }
        panic!("rotel does not start");
    }

    /// All that it printed.
    pub fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("out")).unwrap_or_default()
    }

    pub fn spans(&self) -> Vec<Span> {
        let text = self.text();
        text.split("\nSpan #").skip(1).map(read).collect()
    }

    /// The spans of a trace once its request's own is there; children end, and so are sent, before it.
    pub async fn trace(&self, id: &str) -> Vec<Span> {
        let of = || self.spans().into_iter().filter(|span| span.trace == id).collect::<Vec<_>>();
        // The last attribute of the request's span: what is still being written has none.
        let whole =
            || async { of().iter().any(|span| !span.attribute("http.response.status_code").is_empty()) };
        eventually("the trace arrives", whole).await;
        of()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two that were free a moment ago.
fn free_ports() -> (u16, u16) {
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    (port(&taken[0]), port(&taken[1]))
}

fn rotel(folder: &TempDir, http: u16, grpc: u16) -> Child {
    let out = File::create(folder.path().join("out")).expect("a file");
    let mut command = Command::new(program());
    command.args(["start", "--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity"]);
    command.arg("detailed").arg("--otlp-http-endpoint").arg(format!("127.0.0.1:{http}"));
    command.arg("--otlp-grpc-endpoint").arg(format!("127.0.0.1:{grpc}")).current_dir(folder.path());
    command.stdin(Stdio::null()).stderr(out.try_clone().expect("a second handle")).stdout(out);
    command.spawn().expect("rotel runs")
}

/// `Name : value` lines, then `-> name: Type(value)` lines.
fn read(text: &str) -> Span {
    let mut span = Span::default();
    for line in text.lines().map(str::trim) {
        if let Some(id) = line.strip_prefix("-> Trace ID: ") {
            id.clone_into(&mut span.linked);
        } else if let Some((name, value)) = line.strip_prefix("-> ").and_then(|rest| rest.split_once(": ")) {
            let value = value.split_once('(').map_or(value, |(_, inner)| inner.trim_end_matches(')'));
            span.attributes.insert(name.to_owned(), value.to_owned());
        } else if line.starts_with("ScopeSpans") || line.starts_with("ResourceSpans") {
            break;
        } else if let Some((name, value)) = line.split_once(':') {
            let field = match name.trim() {
                "Trace ID" if span.trace.is_empty() => &mut span.trace,
                "Parent ID" => &mut span.parent,
                "ID" if span.id.is_empty() => &mut span.id,
                "Name" if span.name.is_empty() => &mut span.name,
                "Kind" => &mut span.kind,
                "Status code" => &mut span.status,
                _ => continue,
            };
            value.trim().clone_into(field);
        }
    }
    span
}
