//! `POST /auth/v1/refresh`
use auth_input::{Fields, forms};
use axum::extract::State;
use axum::response::Response;

use super::views;
use crate::app::App;
use crate::extract::Client;
use crate::problem::Problem;

pub async fn create(
    State(app): State<App>,
    Client(client): Client,
    body: Fields,
) -> Result<Response, Problem> {
    let token = forms::refresh(body)?;
    Ok(views::grant(app.refresh.run(&token, &client).await?))
}
