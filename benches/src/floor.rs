//! What nobody can go below: a bare axum handler, and the same signing one token with our key.
use std::sync::Arc;

use auth_core::crypto::signing_key::SigningKey;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::Outcome;

/// As long as a key set of one key.
const BODY: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","use":"sig","alg":"EdDSA"}]}"#;

/// Serves until killed.
pub async fn serve() -> Outcome<()> {
    let key = Arc::new(SigningKey::from_seed(&[7; 32]));
    let app = Router::new().route("/bare", get(bare)).route("/sign", get(sign)).with_state(key);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn bare() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], BODY)
}

async fn sign(State(key): State<Arc<SigningKey>>) -> String {
    key.sign(&benches::claims(1_700_000_000))
}
