//! What does the service say, and to whom? The table of calls, as handlers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, FromRef, State},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION},
    },
    response::IntoResponse,
    routing::{get, post},
};
use edge::{FieldError, Json, client_address::TrustedProxies, email::Email, frame::framed};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    claims::Claims,
    error::{Error, Result},
    jwks,
    password::{Parsed, Password},
    refresh::RefreshToken,
    sessions::Sessions,
    store::Account,
    verifier::Verifier,
};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest address and password are an eighth of it, and JSON may write a character as twelve bytes.
const MAX_BODY: usize = 8 * 1_024;
/// Answers about one person, which no cache may keep (RFC 6749, section 5.1).
const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// What the handlers share.
pub struct Service {
    /// Accounts and sessions.
    pub sessions: Sessions,
    /// Believes our own tokens.
    pub verifier: Verifier,
    /// The proxies that say for whom they ask.
    pub proxies: TrustedProxies,
}

type Shared = State<Arc<Service>>;

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
        .route("/readyz", get(ready));
    framed(calls, TIMEOUT, MAX_BODY).with_state(service)
}

// ANCHOR: guarded_router
/// What another service may look like: it has our key set, and nothing else of ours.
pub fn guarded_router(verifier: Verifier) -> Router {
    let calls = Router::new()
        .route("/me", get(me))
        .route("/readyz", get(async |State(verifier): State<Verifier>| is_ready(&verifier).await));
    framed(calls, TIMEOUT, MAX_BODY).with_state(verifier)
}

/// The hot path: no database, no server, no lock. Who calls it has been verified by then.
async fn me(claims: Claims) -> impl IntoResponse {
    (NO_STORE, Json(Account { id: claims.sub, email: claims.email }))
}
// ANCHOR_END: guarded_router

/// What a client sends to register and to log in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `email` and `password`")]
struct Credentials {
    email: String,
    password: String,
}

impl Credentials {
    /// Parses both fields, so that the client hears of all mistakes at once.
    fn parse(&self, password: fn(&str) -> Parsed) -> Result<(Email, Password)> {
        match (Email::parse(&self.email), password(&self.password)) {
            (Ok(email), Ok(password)) => Ok((email, password)),
            (email, password) => {
                let errors = [("email", email.err()), ("password", password.err())].into_iter();
                let error = |(field, message)| Some(FieldError::new(field, message?));
                Err(Error::Invalid(errors.filter_map(error).collect()))
            }
        }
    }
}

/// What a client sends to refresh.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `refresh_token`")]
struct Refresh {
    refresh_token: String,
}

async fn register(
    State(service): Shared,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(body): Json<Credentials>,
) -> Result<impl IntoResponse> {
    let (email, password) = body.parse(Password::parse_new)?;
    let client = service.proxies.client_of(peer.ip(), &headers);
    let account = service.sessions.register(&email, password, client).await?;
    Ok((StatusCode::CREATED, [(LOCATION, "/me")], NO_STORE, Json(account)))
}

async fn login(
    State(service): Shared,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(body): Json<Credentials>,
) -> Result<impl IntoResponse> {
    let (email, password) = body.parse(Password::parse_given)?;
    let client = service.proxies.client_of(peer.ip(), &headers);
    let login = async move { service.sessions.login(&email, password, client).await };
    let tokens = tokio::spawn(login).await.map_err(Error::internal)??;
    Ok((NO_STORE, Json(tokens)))
}

async fn refresh(State(service): Shared, Json(body): Json<Refresh>) -> Result<impl IntoResponse> {
    // What has not the shape of a token is just no token of ours.
    let token = RefreshToken::parse(&body.refresh_token).ok_or(Error::InvalidRefreshToken)?;
    Ok((NO_STORE, Json(service.sessions.refresh(&token).await?)))
}

async fn logout(State(service): Shared, claims: Claims) -> Result<StatusCode> {
    service.sessions.logout(&claims).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout_everywhere(State(service): Shared, claims: Claims) -> Result<StatusCode> {
    service.sessions.logout_everywhere(&claims).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn key_set(State(service): Shared) -> Result<impl IntoResponse> {
    let issuer = &service.sessions.issuer;
    let keys = issuer.keyring.public().await?;
    let max_age = issuer.schedule.key_set_max_age.as_secs();
    let headers = [
        (CONTENT_TYPE, "application/jwk-set+json".to_owned()),
        // A cache that several verifiers share would keep a withdrawn key for one age of the set more.
        (CACHE_CONTROL, format!("private, max-age={max_age}")),
    ];
    Ok((headers, Json(jwks::set(&keys))))
}

async fn ready(State(service): Shared) -> Result<Json<Value>> {
    service.sessions.issuer.signer().await?;
    is_ready(&service.verifier).await
}

async fn is_ready(verifier: &Verifier) -> Result<Json<Value>> {
    verifier.ready().await?;
    Ok(Json(json!({ "status": "ready" })))
}

impl FromRef<Arc<Service>> for Verifier {
    fn from_ref(service: &Arc<Service>) -> Self {
        service.verifier.clone()
    }
}
