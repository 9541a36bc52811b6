//! `POST /auth/v1/register`
use auth_core::services::RegisterRequest;
use auth_input::{Fields, forms};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::views;
use crate::app::App;
use crate::extract::IdempotencyKey;
use crate::problem::Problem;

pub async fn create(
    State(app): State<App>,
    IdempotencyKey(once): IdempotencyKey,
    body: Fields,
) -> Result<Response, Problem> {
    let forms::Register { email, password, name } = forms::register(body)?;
    let user = app.register.run(RegisterRequest { email, password, name, once }).await?;
    Ok(views::private((StatusCode::CREATED, Json(json!({ "user": views::user(&user) }))).into_response()))
}
