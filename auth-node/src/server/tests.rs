//! The bounds of a listener, with raw connections to a real one.
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const NEVER: Duration = Duration::from_secs(3600);

fn limits() -> Limits {
    Limits { max_connections: 10, header_max_bytes: 16_384, keep_alive: NEVER, drain_max: NEVER }
}

struct Listener {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

async fn listen(limits: Limits) -> Listener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (served, (stop, stopped)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let count = Arc::clone(&served);
    let answer = move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready("here")
    };
    let router = Router::new().route("/", get(answer)).route("/never", get(std::future::pending::<&str>));
    let task = tokio::spawn(serve(listener, router, limits, stopped));
    Listener { address, served, stop, task }
}

impl Listener {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// The first bytes of an answer; empty: the connection is closed.
async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let length = stream.read(&mut bytes).await.unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[tokio::test]
async fn a_connection_too_many_waits_until_one_ends() {
    let listener = listen(Limits { max_connections: 2, ..limits() }).await;
    let (mut one, mut two, mut three) =
        (listener.connect().await, listener.connect().await, listener.connect().await);
    for stream in [&mut one, &mut two] {
        send(stream, GET).await;
        assert!(read(stream).await.ends_with("here"));
    }
    send(&mut three, GET).await;
    for _ in 0..20 {
        send(&mut one, GET).await;
        assert!(read(&mut one).await.ends_with("here"));
    }
    assert_eq!(listener.served.load(Ordering::SeqCst), 22, "the third was not served meanwhile");
    drop(two);
    assert!(read(&mut three).await.ends_with("here"));
}

#[tokio::test]
async fn headers_are_bounded() {
    let listener = listen(limits()).await;
    for (length, status) in [(15_000, "HTTP/1.1 200"), (17_000, "HTTP/1.1 431")] {
        let mut stream = listener.connect().await;
        let long = "a".repeat(length);
        send(&mut stream, &format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n")).await;
        let answer = read(&mut stream).await;
        assert!(answer.starts_with(status), "{length}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed() {
    let listener = listen(Limits { keep_alive: Duration::from_millis(20), ..limits() }).await;
    let (mut silent, mut slow, mut idle) =
        (listener.connect().await, listener.connect().await, listener.connect().await);
    send(&mut slow, "GET / HTTP/1.1\r\nho").await;
    send(&mut idle, GET).await;
    assert!(read(&mut idle).await.ends_with("here"));
    for stream in [&mut silent, &mut slow, &mut idle] {
        while !read(stream).await.is_empty() {}
    }
}

#[tokio::test]
async fn a_drain_ends_though_all_slots_are_full() {
    let listener = listen(Limits { max_connections: 1, ..limits() }).await;
    let mut held = listener.connect().await;
    send(&mut held, GET).await;
    assert!(read(&mut held).await.ends_with("here"));
    let mut waiting = listener.connect().await;
    send(&mut waiting, GET).await;
    listener.stop.send_replace(true);
    listener.task.await.unwrap();
    assert_eq!(read(&mut held).await, "", "idle connections are closed");
}

#[tokio::test]
async fn a_drain_waits_for_what_runs_but_not_for_ever() {
    let listener = listen(Limits { drain_max: Duration::from_millis(50), ..limits() }).await;
    let mut stuck = listener.connect().await;
    send(&mut stuck, "GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut fine = listener.connect().await;
    send(&mut fine, GET).await;
    assert!(read(&mut fine).await.ends_with("here"));
    listener.stop.send_replace(true);
    listener.task.await.unwrap();
}
