//! `POST /auth/v1/refresh`
use axum::extract::State;
use axum::response::Response;

use super::views;
use crate::app::App;
use crate::extract::{Client, Fields};
use crate::problem::Problem;

pub async fn create(
    State(app): State<App>,
    Client(client): Client,
    mut body: Fields,
) -> Result<Response, Problem> {
    let token = body.string("refresh_token");
    let token = body.finish(token)?;
    Ok(views::grant(app.refresh.run(&token, &client).await?))
}
