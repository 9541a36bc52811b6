//! The listeners: bounded connections, header sizes and times, and a drain that resets nobody.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;

/// Limits of one listener.
#[derive(Clone, Copy)]
pub struct Limits {
    pub max_connections: usize,
    pub header_max_bytes: usize,
    /// How long a connection may take to send the next request's head, and so how long it may idle. Longer than the
    /// gateways before us keep theirs, or they meet a connection that is just being closed.
    pub keep_alive: Duration,
    pub drain_max: Duration,
}

/// Serves until `stop` turns true; then takes no new connection, finishes what runs and returns.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stopped(&mut stop) => break,
        };
        let (slot, stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: accepting again at once would spin.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = connection(stream, peer, router.clone(), limits);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_max, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still busy when the drain ended");
    }
}

/// A connection, once there is room for one more; until then it waits in the system's backlog.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    Ok((slot, stream, peer))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: stop as well.
    drop(stop.wait_for(|stop| *stop).await);
}

type Served = hyper::server::conn::http1::Connection<TokioIo<TcpStream>, TowerToHyperService<PeerService>>;

fn connection(stream: TcpStream, peer: SocketAddr, router: Router, limits: Limits) -> Served {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.keep_alive)
        .max_buf_size(limits.header_max_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(PeerService { router, peer }))
}

/// Puts the peer's address into each request.
#[derive(Clone)]
pub struct PeerService {
    router: Router,
    peer: SocketAddr,
}

impl tower::Service<Request<Incoming>> for PeerService {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = tower::util::Oneshot<Router, Request<Body>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.router.clone().oneshot(request.map(Body::new))
    }
}

#[cfg(test)]
mod tests;
