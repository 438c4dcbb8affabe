//! A service whose users have a cookie, which browsers add by themselves, and one that asks nobody who it is, since it stands
//! inside a network; and the ways in which their answers are shared with the pages of other origins.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header::COOKIE},
    routing::get,
};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The ways, with a name for each. `listed` is the origin that should be able to read.
pub fn ways(listed: &HeaderValue) -> [(&'static str, CorsLayer); 5] {
    let with = |origin: AllowOrigin| CorsLayer::new().allow_origin(origin).allow_credentials(true);
    [
        ("says nothing", CorsLayer::new()),
        ("has a list", with(AllowOrigin::list([listed.clone()]))),
        ("reflects the origin", with(AllowOrigin::mirror_request())),
        ("allows null", with(AllowOrigin::exact(HeaderValue::from_static("null")))),
        ("allows *", CorsLayer::new().allow_origin(tower_http::cors::Any)),
    ]
}

/// A service that shows this text to whoever has the cookie, and on another path to everybody.
pub fn calls(text: &str, cors: CorsLayer) -> Router {
    let inside = async |State(text): State<String>| text;
    let calls = Router::new().route("/private", get(private)).route("/inside", get(inside));
    calls.layer(cors).with_state(text.to_owned())
}

/// The cookie of a user who is logged in.
pub const SESSION: &str = "session=of-a-user";

async fn private(State(text): State<String>, headers: HeaderMap) -> (StatusCode, String) {
    let cookie = headers.get(COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if cookie.contains(SESSION) {
        (StatusCode::OK, text)
    } else {
        (StatusCode::UNAUTHORIZED, "no cookie".to_owned())
    }
}
