//! A service that embeds the verifier: `GET /orders` belongs to whoever the access token names.
//!
//! `ISSUER` (default `http://127.0.0.1:3002`) is trusted; `PORT` (default 8080, 0 for any free one) is listened on.
//! ```sh
//! cargo run -p token-verifier --example orders
//! curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/orders
//! ```

use std::net::Ipv4Addr;

use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use token_verifier::{Claims, Verifier, VerifyLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let issuer = std::env::var("ISSUER").unwrap_or_else(|_| "http://127.0.0.1:3002".to_owned());
    let port: u16 = std::env::var("PORT").map_or(Ok(8080), |port| port.parse())?;

    let verifier = Verifier::builder(&issuer, &issuer).start().await?;
    println!("issuer {issuer}, {:?}", verifier.status());

    let app = Router::new()
        .route("/orders", get(orders))
        .layer(VerifyLayer::new(verifier)) // every route above needs a token, every route below does not
        .route("/", get(|| async { "GET /orders with an access token\n" }));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn orders(Extension(claims): Extension<Claims>) -> Json<Value> {
    Json(json!({
        "subject": claims.sub,
        "session": claims.sid,
        "orders": [
            { "id": 1, "item": "tesserae, Ravenna blue", "count": 400 },
            { "id": 2, "item": "lime mortar, 5 kg", "count": 2 },
        ],
    }))
}
