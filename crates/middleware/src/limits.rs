//! How much may one client ask for? A limit by address needs the address, and the limit of a body needs no reading of it.

use std::net::{IpAddr, SocketAddr};
use std::{num::NonZeroU32, sync::Arc};

use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{body::Body, http, http::StatusCode, middleware::Next};
use edge::Problem;
use edge::client_address::{TrustedProxies, one_client};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use tower::ServiceBuilder;
use tower_http::{body::Limited, limit::RequestBodyLimitLayer};

use crate::layer::{Inner, around, with_problems};

/// The address of the client behind the proxies that we trust: what the layer `client-address` found out.
#[derive(Clone, Copy, Debug)]
struct Client(IpAddr);

/// Where the connection comes from.
fn peer(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip())
}

/// Finds out who asks, behind a proxy.
pub async fn client_address(
    State(proxies): State<TrustedProxies>,
    mut request: Request,
    next: Next,
) -> Response {
    let client = proxies.client_of(peer(&request), request.headers());
    request.extensions_mut().insert(Client(client));
    next.run(request).await
}

/// A budget for each address.
pub type Rates = Arc<DefaultKeyedRateLimiter<IpAddr>>;

/// At most this many requests a minute for each address, in one burst or spread out.
pub fn rates(a_minute: NonZeroU32) -> Rates {
    Arc::new(DefaultKeyedRateLimiter::keyed(Quota::per_minute(a_minute)))
}

// ANCHOR: rate_limit
/// 429 for a client that asks too often. Without `client-address` outside it, all clients of one proxy are one client.
pub async fn rate_limit(State(rates): State<Rates>, request: Request, next: Next) -> Response {
    let client = request.extensions().get().map_or_else(|| peer(&request), |Client(ip)| *ip);
    // What has refilled is forgotten now and then, so that the table does not grow with every address ever seen.
    if rates.len() > 10_000 {
        rates.retain_recent();
    }
    match rates.check_key(&one_client(client)) {
        Ok(()) => next.run(request).await,
        Err(until) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "ask less often")
            .retry_after(until.wait_time_from(DefaultClock::default().now()))
            .into_response(),
    }
}
// ANCHOR_END: rate_limit

/// 413 for a body that is longer: at once if the client says so, and otherwise when somebody has read that much.
pub fn body_limit(longest: usize, inner: Inner) -> Inner {
    let plain = |request: http::Request<Limited<Body>>| request.map(Body::new);
    let limit = ServiceBuilder::new().layer(RequestBodyLimitLayer::new(longest)).map_request(plain);
    with_problems(around(&limit, inner))
}
