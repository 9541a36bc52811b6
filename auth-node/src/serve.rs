//! `auth-node serve`: start, listen, and on SIGTERM leave without anybody noticing.
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::{App, Telemetry};
use crate::config::{Config, ConfigError};
use crate::server::{self, Limits};
use crate::traces::Traces;
use crate::{Failure, background, problem, routes, telemetry};

/// Runs until SIGTERM or SIGINT, drains, returns.
pub async fn run(config: Config) -> Result<(), Failure> {
    let traces = Traces::start(&config.telemetry)?;
    telemetry::logs(&config.log, traces.as_ref())?;
    problem::set_base(&config.server.public_url);
    let metrics = telemetry::recorder()?;
    let app = App::open(&config, Telemetry { metrics, traces }).await?;
    background::first_keys(&app).await;
    background::start(&app);
    let public = listen(config.server.listen, "server.listen").await?;
    let ops = listen(config.server.ops_listen, "server.ops_listen").await?;
    let (address, ops_address) = (bound(&public), bound(&ops));
    tracing::info!(listen = address, ops = ops_address, traced = app.traces.is_some(), "serving");

    let (stop, stopped) = watch::channel(false);
    let limits = limits(&config);
    let serving = tokio::spawn(server::serve(public, routes::public(app.clone()), limits, stopped.clone()));
    let watching = tokio::spawn(server::serve(ops, routes::ops(app.clone()), limits, stopped));
    wait_for_signal().await?;
    tracing::info!("draining: no longer ready, still listening");
    app.start_draining();
    tokio::time::sleep(Duration::from_millis(config.server.drain_grace_ms)).await;
    stop.send_replace(true);
    let (public_done, ops_done) = tokio::join!(serving, watching);
    app.router.shutdown();
    if let Some(traces) = &app.traces {
        traces.flush().await;
    }
    if public_done.is_err() || ops_done.is_err() {
        return Err(Failure::Failed("a listener panicked".into()));
    }
    tracing::info!("drained");
    Ok(())
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|e| ConfigError(format!("{key}: {address}: {e}")).into())
}

/// Where it listens really: a configured port 0 is the system's choice.
fn bound(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_connections: config.server.max_connections,
        header_max_bytes: config.server.header_max_bytes,
        keep_alive: Duration::from_millis(config.server.keep_alive_ms),
        drain_max: Duration::from_millis(config.server.drain_max_ms),
    }
}

async fn wait_for_signal() -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::Failed(e.to_string());
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
