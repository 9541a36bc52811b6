//! `POST /auth/v1/register`
use auth_core::services::RegisterRequest;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::views;
use crate::app::App;
use crate::extract::{Fields, IdempotencyKey};
use crate::problem::Problem;

pub async fn create(
    State(app): State<App>,
    IdempotencyKey(once): IdempotencyKey,
    mut body: Fields,
) -> Result<Response, Problem> {
    let (email, password) = (body.email("email"), body.new_password("password"));
    let name = body.optional_name("name");
    let (email, password) = body.finish(email.zip(password))?;
    let user = app.register.run(RegisterRequest { email, password, name, once }).await?;
    Ok(views::private((StatusCode::CREATED, Json(json!({ "user": views::user(&user) }))).into_response()))
}
