//! What every answer and every foreign browser meets before a route does: hosts, origins, headers.
//!
//! Built from the configuration once. The order is that of `routes.rs`: headers outermost, then the host, then the origin.
use std::sync::Arc;

use auth_input::{BadHost, Hosts, Origins};
use axum::extract::{Request, State};
use axum::http::header::{
    self, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_SECURITY_POLICY, ORIGIN, STRICT_TRANSPORT_SECURITY, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::Server;
use crate::problem::Problem;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What a page of another origin may send and read, and for how long its browser remembers that, in seconds.
const REQUEST_HEADERS: &str = "authorization, content-type, idempotency-key, if-none-match, tessera-device, tessera-read-after, traceparent, x-request-id";
const ANSWER_HEADERS: &str = "etag, ratelimit, ratelimit-policy, retry-after, tessera-device, tessera-read-after, www-authenticate, x-request-id";
const METHODS: &str = "GET, POST, PATCH, DELETE";
const PREFLIGHT_MAX_AGE_S: &str = "7200";
const HSTS: &str = "max-age=31536000";
const NO_CONTENT_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Who may ask, and under which names.
#[derive(Clone)]
pub struct Edge(Arc<Rules>);

struct Rules {
    hosts: Hosts,
    origins: Origins,
    https: bool,
}

impl Edge {
    /// The hosts and origins of the configuration, and those of `public_url`.
    pub fn new(server: &Server) -> Self {
        let https = server.public_url.starts_with("https://");
        let own = server.public_url.split_once("://").map_or("", |(_, host)| host);
        let hosts = server.allowed_hosts.iter().map(String::as_str).chain([own]);
        let origins = server.allowed_origins.iter().chain([&server.public_url]).map(String::as_str);
        Self(Arc::new(Rules { hosts: Hosts::new(hosts, https), origins: Origins::new(origins), https }))
    }
}

/// Headers that every answer has. A page brings a content policy of its own.
pub async fn harden(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let set = |headers: &mut HeaderMap, name, value| headers.insert(name, HeaderValue::from_static(value));
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::REFERRER_POLICY, "no-referrer");
    set(headers, CROSS_ORIGIN_RESOURCE_POLICY, "same-origin");
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        set(headers, CONTENT_SECURITY_POLICY, NO_CONTENT_POLICY);
    }
    if edge.0.https {
        set(headers, STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// Answers under our own names only: a name that somebody points at us must not become a name of ours. Health checks
/// ask by address, and their answer says nothing.
pub async fn own_host(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/health" {
        return next.run(request).await;
    }
    let authority = request.uri().authority().map(Authority::as_str);
    match edge.0.hosts.check(request.headers(), authority) {
        Ok(()) => next.run(request).await,
        Err(BadHost::NotOne) => Problem::Malformed("The request needs one Host header.").into_response(),
        Err(BadHost::Foreign) => Problem::Misdirected.into_response(),
    }
}

/// Cross-origin sharing (Fetch standard) with the origins that are listed, by name, never with `*`. A foreign page is not
/// told anything, and what it sends is refused if it would change something: no cookie signs anyone in, so an unsafe call
/// needs JSON (the body extractor) and an origin of ours, where the browser names one.
pub async fn own_origin(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let known = origin.filter(|origin| edge.0.origins.knows(origin));
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let refused = Problem::Forbidden("This origin may not send such calls.");
    let mut response = if preflight {
        if known.is_some() { allowed() } else { refused.into_response() }
    } else if request.method().is_safe() || edge.0.origins.may_write(request.headers()) {
        next.run(request).await
    } else {
        refused.into_response()
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = known {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        // A page of the same site keeps the device cookie.
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
    }
    response
}

fn allowed() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE_S),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
