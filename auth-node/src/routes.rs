//! Every address of a node, in one table each for the public and the ops listener.
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};

use crate::app::App;
use crate::controllers::{docs, health, jwks, login, me, refresh, register, sessions, verify};
use crate::problem::Problem;
use crate::{edge, limits, middleware, read_after};

/// The public listener.
pub fn public(app: App) -> Router {
    // Every route that needs no token and costs something is counted for its address. A refresh counts itself: only
    // what is forged, or one session's too many (services/throttle.rs).
    let open_call = from_fn_with_state(app.clone(), limits::open_call);
    Router::new()
        .route("/auth/v1/register", post(register::create).layer(open_call.clone()))
        .route("/auth/v1/login", post(login::create).layer(open_call))
        .route("/auth/v1/refresh", post(refresh::create))
        .route("/auth/v1/logout", post(sessions::logout))
        .route("/auth/v1/sessions", get(sessions::list).delete(sessions::end_others))
        .route("/auth/v1/sessions/{id}", delete(sessions::end))
        .route("/auth/v1/me", get(me::show).patch(me::rename).delete(me::delete))
        .route("/auth/v1/me/password", post(me::change_password))
        .route("/auth/verify", get(verify::show))
        .route("/.well-known/jwks.json", get(jwks::show))
        .route("/health", get(health::public))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::page))
        .route("/docs/{file}", get(docs::asset))
        .route("/problems/{name}", get(docs::problem))
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .fallback(|| async { Problem::NotFound })
        // The last layer is the outermost.
        .layer(from_fn(read_after::follow))
        .layer(from_fn_with_state(app.request_timeout, middleware::deadline))
        .layer(from_fn_with_state(app.clone(), middleware::sound_clock))
        .layer(from_fn_with_state(app.edge.clone(), edge::own_origin))
        .layer(from_fn_with_state(app.edge.clone(), edge::own_host))
        .layer(from_fn_with_state(app.clone(), middleware::observe))
        .layer(from_fn_with_state(app.edge.clone(), edge::harden))
        .with_state(app)
}

/// The ops listener: never public.
pub fn ops(app: App) -> Router {
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/health/dependencies", get(health::dependencies))
        .route("/metrics", get(crate::telemetry::metrics))
        .fallback(|| async { Problem::NotFound })
        .with_state(app)
}
