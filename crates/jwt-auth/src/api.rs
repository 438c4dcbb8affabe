//! What does the service say, and to whom? The table of calls, as handlers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{
        ConnectInfo, DefaultBodyLimit, Extension, FromRef, FromRequest, FromRequestParts, Request,
        State,
    },
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION},
        request::Parts,
    },
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use edge::{
    Json,
    frame::{alive, in_time, method_not_allowed, panicked},
    json::JsonRejection,
};
use serde_json::{Value, json};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    bearer::RequireToken,
    body::{Credentials, Refresh, Tokens, User},
    claims::Claims,
    error::Error,
    jwks,
    service::Service,
    sessions::Proof,
    verifier::Verifier,
};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest address and password are an eighth of it, and JSON may write a character as twelve bytes.
const MAX_BODY: usize = 8 * 1_024;
/// Answers about one person, which no cache may keep (RFC 6749, section 5.1).
const NO_STORE: [(axum::http::HeaderName, HeaderValue); 1] =
    [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// All of the service, to be served with the client's address as `ConnectInfo<SocketAddr>` in each request.
pub fn router(service: Arc<Service>) -> Router {
    let calls = Router::new()
        .route("/register", post(register))
        .route("/login", post(login))
        .route("/token/refresh", post(refresh))
        .route("/logout", post(logout))
        .route("/logout/everywhere", post(logout_everywhere))
        .route("/.well-known/jwks.json", get(key_set))
        .route("/me", get(me))
        .route("/readyz", get(ready))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    framed(calls).with_state(service)
}

// ANCHOR: guarded_router
/// What another service may look like: it has our key set, and nothing else of ours.
pub fn guarded_router(verifier: Verifier) -> Router {
    let calls = Router::new()
        .route("/me", get(async |Extension(claims): Extension<Claims>| (NO_STORE, user(claims))))
        .route_layer(RequireToken::new(verifier.clone()))
        .route("/readyz", get(async |State(verifier): State<Verifier>| is_ready(&verifier).await));
    framed(calls).with_state(verifier)
}
// ANCHOR_END: guarded_router

/// What every request gets, whatever it asks for.
fn framed<S: Clone + Send + Sync + 'static>(calls: Router<S>) -> Router<S> {
    calls
        .route("/healthz", get(alive))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(TIMEOUT, in_time))
        .layer(TraceLayer::new_for_http().on_failure(()))
        .layer(CatchPanicLayer::custom(panicked))
}

async fn register(
    State(service): State<Arc<Service>>,
    Json(body): Json<Credentials>,
) -> Result<impl IntoResponse, Error> {
    let (email, password) = body.parse_new()?;
    let account = service.sessions.register(&email, password).await?;
    let location = [(LOCATION, HeaderValue::from_static("/me"))];
    Ok((StatusCode::CREATED, location, NO_STORE, Json(User::from(account))))
}

async fn login(
    State(service): State<Arc<Service>>,
    Client(client): Client,
    Json(body): Json<Credentials>,
) -> Result<impl IntoResponse, Error> {
    let (email, password) = body.parse_given()?;
    let pair = service.sessions.login(&email, password, client).await?;
    Ok((NO_STORE, Json(Tokens::from(pair))))
}

async fn refresh(
    State(service): State<Arc<Service>>,
    Json(body): Json<Refresh>,
) -> Result<impl IntoResponse, Error> {
    let pair = service.sessions.refresh(&body.parse()?).await?;
    Ok((NO_STORE, Json(Tokens::from(pair))))
}

// ANCHOR: me
/// The hot path: no database, no server, no lock. Who calls it has been verified by then.
async fn me(claims: Claims) -> impl IntoResponse {
    (NO_STORE, user(claims))
}
// ANCHOR_END: me

async fn logout(State(service): State<Arc<Service>>, proof: Proof) -> Result<StatusCode, Error> {
    service.sessions.logout(proof).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout_everywhere(
    State(service): State<Arc<Service>>,
    proof: Proof,
) -> Result<StatusCode, Error> {
    service.sessions.logout_everywhere(proof).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn key_set(State(service): State<Arc<Service>>) -> Result<impl IntoResponse, Error> {
    let keys = service.sessions.issuer.keyring().public().await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json")),
        (CACHE_CONTROL, service.key_set_caching.clone()),
    ];
    Ok((headers, jwks::set(&keys).to_string() + "\n"))
}

async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    service.sessions.store.ping().await?;
    is_ready(&service.verifier).await
}

async fn is_ready(verifier: &Verifier) -> Result<Json<Value>, Error> {
    verifier.ready().await?;
    Ok(Json(json!({ "status": "ready" })))
}

fn user(claims: Claims) -> Json<User> {
    Json(User { id: claims.sub, email: claims.email })
}

/// A refresh token in the body, or else an access token in the header.
impl FromRequest<Arc<Service>> for Proof {
    type Rejection = Response;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let body = Request::from_parts(parts.clone(), body);
        let bytes = Bytes::from_request(body, service).await;
        let bytes = bytes.map_err(|error| JsonRejection::from(error).into_response())?;
        // An empty object is what a client sends that always sends JSON.
        if bytes.trim_ascii().is_empty() || bytes.trim_ascii() == b"{}" {
            let claims = Claims::from_request_parts(&mut parts, service).await;
            return claims.map(Self::Access).map_err(IntoResponse::into_response);
        }
        let body = Request::from_parts(parts, bytes.into());
        let body = Json::<Refresh>::from_request(body, service).await;
        let Json(body) = body.map_err(IntoResponse::into_response)?;
        body.parse().map(Self::Refresh).map_err(IntoResponse::into_response)
    }
}

/// Whom failed logins are counted for.
struct Client(IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        // Who serves the router without telling the addresses gets one limit for all.
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self(address.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(peer)| peer.ip())))
    }
}

impl FromRef<Arc<Service>> for Verifier {
    fn from_ref(service: &Arc<Service>) -> Self {
        service.verifier.clone()
    }
}
