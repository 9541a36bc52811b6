//! Who sends the request: the address behind the trusted proxies, the user agent, the device.
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use auth_core::domain::{Address, ClientContext, UserAgent};
use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use crate::app::App;

/// What the request tells about its sender.
pub struct Client(pub ClientContext);

impl FromRequestParts<App> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Self(ClientContext {
            address: client_address(parts, app),
            user_agent: UserAgent::new(agent),
            device: auth_input::device(&parts.headers),
        }))
    }
}

/// The client's address, behind the trusted proxies.
pub(super) fn client_address(parts: &Parts, app: &App) -> Address {
    let peer = parts.extensions.get::<SocketAddr>().map_or(IpAddr::from([0, 0, 0, 0]), SocketAddr::ip);
    Address::new(app.proxies.client(peer, &parts.headers))
}
