//! JSON bodies: bounded and read as a whole; what stands in them is `auth-input`'s to say.
use auth_input::{Fields, is_json};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use http_body_util::BodyExt;

use crate::app::App;
use crate::problem::Problem;

impl FromRequest<App> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::UnsupportedMediaType);
        }
        let bytes = read(request.into_body(), app.body_max_bytes).await?;
        Ok(Self::parse(&bytes)?)
    }
}

/// What a client may go on sending after its body is too large, until it is cut off.
const DISCARDED_BYTES: usize = 2 << 20;

/// The whole body. One that is too large is read to its end and thrown away: closing on a client that still sends would
/// reset the connection, and with it the answer.
async fn read(mut body: Body, max_bytes: usize) -> Result<Vec<u8>, Problem> {
    let (mut kept, mut seen) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        // A client that broke off reads no answer; any will do.
        let frame = frame.map_err(|_| Problem::Malformed("The body ended early."))?;
        let Some(data) = frame.data_ref() else { continue };
        seen += data.len();
        if seen <= max_bytes {
            kept.extend_from_slice(data);
        } else if seen > DISCARDED_BYTES {
            break;
        }
    }
    if seen > max_bytes { Err(Problem::PayloadTooLarge) } else { Ok(kept) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_without_end_is_left() {
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&sent);
        let endless = futures::stream::repeat_with(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(vec![b' '; 1 << 10])
        });
        assert_eq!(read(Body::from_stream(endless), 65_536).await, Err(Problem::PayloadTooLarge));
        assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), (DISCARDED_BYTES >> 10) + 1);
        assert_eq!(read(Body::from(vec![b' '; 65_536]), 65_536).await.map(|body| body.len()), Ok(65_536));
    }
}
