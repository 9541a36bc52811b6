//! What stands around a gateway: a service that says what it heard, a stand-in for an auth node, a line that breaks.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

async fn listen(port: u16) -> (u16, TcpListener) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
    (listener.local_addr().expect("an address").port(), listener)
}

fn serve(listener: TcpListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") })
}

/// A request as it arrived.
async fn told(request: Request) -> Value {
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, 1 << 20).await.expect("a whole body");
    let headers =
        parts.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
    json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "headers": headers.collect::<Vec<_>>(),
        "body": String::from_utf8_lossy(&body),
    })
}

/// All values of one header of a request that was told.
pub fn values<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = told["headers"].as_array().expect("headers").iter();
    headers.filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str()).collect()
}

/// The service behind the gateway: answers with the request that it got.
pub struct Service {
    pub port: u16,
    asked: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Service {
    pub async fn start() -> Self {
        let asked = Arc::new(AtomicU64::new(0));
        let answer = |State(asked): State<Arc<AtomicU64>>, request: Request| async move {
            asked.fetch_add(1, Ordering::SeqCst);
            axum::Json(told(request).await)
        };
        let (port, listener) = listen(0).await;
        let task = serve(listener, Router::new().fallback(answer).with_state(Arc::clone(&asked)));
        Self { port, asked, task }
    }

    /// How many requests have reached it.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An auth node that answers what it is told to, and remembers what it was asked last.
pub struct StandIn {
    pub port: u16,
    state: Arc<Mutex<Lines>>,
    task: JoinHandle<()>,
}

struct Lines {
    status: StatusCode,
    headers: HeaderMap,
    asked: Value,
}

impl StandIn {
    pub async fn start() -> Self {
        let lines = Lines { status: StatusCode::OK, headers: HeaderMap::new(), asked: Value::Null };
        let state = Arc::new(Mutex::new(lines));
        let answer = |State(state): State<Arc<Mutex<Lines>>>, request: Request| async move {
            let told = told(request).await;
            let mut lines = lock(&state);
            lines.asked = told;
            (lines.status, lines.headers.clone())
        };
        let (port, listener) = listen(0).await;
        let router = Router::new().route("/health", axum::routing::get(|| async {}));
        let task = serve(listener, router.fallback(answer).with_state(Arc::clone(&state)));
        Self { port, state, task }
    }

    /// From now on answers so.
    pub fn say(&self, status: u16, headers: &[(&'static str, &'static str)]) {
        let mut lines = lock(&self.state);
        lines.status = StatusCode::from_u16(status).expect("a status");
        let pairs = headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        lines.headers = pairs.collect();
    }

    /// The last request but for those about its health.
    pub fn asked(&self) -> Value {
        lock(&self.state).asked.clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    state.lock().expect("no test panicked with it")
}

/// A line to a port of this machine, over a port of its own.
pub struct Line {
    broken: watch::Sender<bool>,
    asked_for_keys: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Line {
    pub async fn open(port: u16, to: u16) -> Self {
        let (_, listener) = listen(port).await;
        let (broken, watched) = watch::channel(false);
        let asked_for_keys = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(run(listener, to, watched, Arc::clone(&asked_for_keys)));
        Self { broken, asked_for_keys, task }
    }

    /// Ends every connection, and each new one as soon as it has asked.
    pub fn cut(&self) {
        self.broken.send_replace(true);
    }

    /// How many asked for the JWKS in vain.
    pub fn asked_for_keys(&self) -> u64 {
        self.asked_for_keys.load(Ordering::SeqCst)
    }

    /// Nobody listens any more.
    pub async fn close(self) {
        self.task.abort();
        let _cancelled = self.task.await;
    }
}

async fn run(listener: TcpListener, to: u16, mut broken: watch::Receiver<bool>, asked: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("a connection");
                if *broken.borrow() {
                    connections.spawn(break_off(stream, Arc::clone(&asked)));
                } else {
                    connections.spawn(carry(stream, to));
                }
            }
            Ok(()) = broken.changed() => connections.abort_all(),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut stream: TcpStream, to: u16) {
    if let Ok(mut node) = TcpStream::connect(("127.0.0.1", to)).await {
        let _reset = tokio::io::copy_bidirectional(&mut stream, &mut node).await;
    }
}

async fn break_off(mut stream: TcpStream, asked: Arc<AtomicU64>) {
    let mut head = vec![0; 4096];
    let length = stream.read(&mut head).await.unwrap_or_default();
    if String::from_utf8_lossy(&head[..length]).contains("/.well-known/jwks.json") {
        asked.fetch_add(1, Ordering::SeqCst);
    }
}
