//! What happens around every public request: an id, one log line, one measurement, perhaps a trace, a deadline.
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::Instrument;

use crate::app::App;
use crate::http_metrics;
use crate::problem::Problem;
use crate::traces::{self, Seen};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the request, logs it once, measures it, and traces it if the dice say so. Never logs a value that a client sent but the id it chose.
pub async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let seen = Seen { id: id.to_str().unwrap_or_default(), method, route };
    let traced = app.traces.as_ref().is_some_and(|traces| traces.takes(rand::random()));
    let span = if traced {
        let peer = request.extensions().get::<SocketAddr>();
        traces::open(&seen, &request, peer.is_some_and(|peer| app.proxies.trusts(peer.ip())))
    } else {
        tracing::info_span!("request", request.id = seen.id, http.route = route.unwrap_or("unmatched"))
    };
    let started = Instant::now();
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answer.unwrap_or_else(|_| {
        let _inside = span.enter();
        tracing::error!("a request handler panicked");
        Problem::Internal.into_response()
    });
    let elapsed = started.elapsed();
    let status = response.status().as_u16();
    span.in_scope(|| {
        tracing::info!(
            http.method = method,
            http.status = status,
            duration_us = elapsed.as_micros() as u64,
            "request"
        );
    });
    if traced {
        traces::end(&span, status);
    }
    http_metrics::record(route.unwrap_or("unmatched"), method, status, elapsed);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A method of the standard, or none of them: what a client invents makes no metric series and no log text.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

/// A caller's id is kept when it is harmless; else we make one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    auth_input::request_id(headers).cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::from_str(&id).expect("hexadecimal digits are a header value")
    })
}

/// A clock that is far off calls live tokens expired and drops the key that signs: no verdict from here, but 503.
pub async fn sound_clock(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.clock_is_far_off() && request.uri().path() != "/health" {
        return Problem::Unavailable.into_response();
    }
    next.run(request).await
}

/// No request outlives its deadline. What its store call did by then is unknown, hence 503.
///
/// A call that may change something runs on a task of its own: a client that hangs up must not leave a commit without
/// its tombstone, nor close a database connection in the middle of a transaction.
pub async fn deadline(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let safe = request.method().is_safe();
    let work = tokio::time::timeout(limit, next.run(request));
    let outcome = if safe {
        work.await
    } else {
        let task = tokio::spawn(work.in_current_span());
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    };
    match outcome {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!("a request ran into its deadline");
            Problem::Unavailable.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn no_request_outlives_its_deadline() {
        let stuck = std::future::pending::<&str>;
        let routes = Router::new().route("/", get(stuck).post(stuck)).route("/here", get(async || "here"));
        let router = routes.layer(from_fn_with_state(Duration::from_millis(20), deadline));
        for (method, path, status) in [("GET", "/", 503), ("POST", "/", 503), ("GET", "/here", 200)] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {path}");
            assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
        }
    }
}
