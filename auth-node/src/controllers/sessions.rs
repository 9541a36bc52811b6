//! `POST /auth/v1/logout` and `/auth/v1/sessions`
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use shard_key::SessionId;

use super::views;
use crate::app::App;
use crate::extract::{Caller, Consistency, Subject};
use crate::problem::Problem;

pub async fn logout(State(app): State<App>, Subject(caller): Subject) -> Result<StatusCode, Problem> {
    app.sessions.logout(caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Consistency(freshness): Consistency,
) -> Result<Response, Problem> {
    let sessions = app.sessions.list(&caller, freshness).await?;
    let list: Vec<_> = sessions.iter().map(|s| views::session(s, s.id == caller.session_id)).collect();
    Ok(views::private(Json(json!({ "sessions": list }))))
}

pub async fn end(
    State(app): State<App>,
    Subject(caller): Subject,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = id.parse::<SessionId>().map_err(|_| Problem::NotFound)?;
    app.sessions.end(caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn end_others(State(app): State<App>, Subject(caller): Subject) -> Result<StatusCode, Problem> {
    app.sessions.end_others(caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
