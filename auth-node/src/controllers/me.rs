//! `/auth/v1/me`
use auth_input::{Fields, forms};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::views;
use crate::app::App;
use crate::extract::{Caller, Client, Consistency, IdempotencyKey, Subject};
use crate::problem::Problem;

pub async fn show(
    State(app): State<App>,
    Caller(caller): Caller,
    Consistency(freshness): Consistency,
) -> Result<Response, Problem> {
    let user = app.account.get(&caller, freshness).await?;
    Ok(views::private(Json(views::user(&user))))
}

pub async fn rename(
    State(app): State<App>,
    Subject(caller): Subject,
    IdempotencyKey(once): IdempotencyKey,
    body: Fields,
) -> Result<Response, Problem> {
    let name = forms::rename(body)?;
    let user = app.account.rename(caller, name, once.as_ref()).await?;
    Ok(views::private(Json(views::user(&user))))
}

pub async fn change_password(
    State(app): State<App>,
    Subject(caller): Subject,
    Client(client): Client,
    IdempotencyKey(once): IdempotencyKey,
    body: Fields,
) -> Result<StatusCode, Problem> {
    let forms::ChangePassword { current, new } = forms::change_password(body)?;
    app.account.change_password(caller, (&current, &new), client.address, once.as_ref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn delete(
    State(app): State<App>,
    Subject(caller): Subject,
    Client(client): Client,
    IdempotencyKey(once): IdempotencyKey,
    body: Fields,
) -> Result<StatusCode, Problem> {
    let password = forms::delete_account(body)?;
    app.account.delete(caller, &password, client.address, once.as_ref()).await?;
    Ok(StatusCode::NO_CONTENT)
}
