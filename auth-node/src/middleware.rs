//! What happens around every public request: an id, one log line, one measurement, a deadline, the CSRF rule.
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::Instrument;

use crate::app::App;
use crate::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the request, logs it once and measures it. Never logs a value that a client sent but the id it chose.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span =
        tracing::info_span!("request", request.id = id.to_str().unwrap_or_default(), http.route = %route);
    let started = Instant::now();
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answer.unwrap_or_else(|_| {
        span.in_scope(|| tracing::error!("a request handler panicked"));
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
    metrics::histogram!("tessera_http_request_seconds", "route" => route, "method" => method, "status" => status.to_string())
        .record(elapsed.as_secs_f64());
    response.headers_mut().insert(REQUEST_ID, id);
    harden(response.headers_mut());
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
    let given = headers.get(&REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    });
    given.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::from_str(&id).expect("hexadecimal digits are a header value")
    })
}

fn harden(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// No request outlives its deadline. What its store call did by then is unknown, hence 503.
///
/// A call that may change something runs on a task of its own: a client that hangs up must not leave a commit without
/// its tombstone, nor close a database connection in the middle of a transaction.
pub async fn deadline(State(app): State<App>, request: Request, next: Next) -> Response {
    let limit = Duration::from_millis(app.request_timeout_ms);
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

/// While no cookie signs anyone in, an unsafe call needs JSON (the body extractor) and an origin of ours, where the
/// browser names one.
pub async fn same_site(State(app): State<App>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let origin_ok = text(header::ORIGIN).is_none_or(|origin| app.origins.iter().any(|ours| ours == origin));
    let site = text(HeaderName::from_static("sec-fetch-site"));
    // A listed origin may be another site; then Origin has spoken.
    let site_ok = site.is_none_or(|site| matches!(site, "same-origin" | "same-site" | "none"))
        || (origin_ok && headers.contains_key(header::ORIGIN));
    if request.method().is_safe() || (origin_ok && site_ok) {
        return next.run(request).await;
    }
    Problem::Forbidden("This origin may not send such calls.").into_response()
}
