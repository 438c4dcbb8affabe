//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, LOCATION},
        request::Parts,
    },
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::{get, post},
};
use edge::{
    FieldError, Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use futures_util::future::try_join_all;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    access::EditToken,
    clicks::Referrer,
    code::Code,
    create::{Created, NewLink},
    error::Error,
    long_url::{LongUrl, Ourselves},
    service::Service,
    store::{Link, Store},
};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest URL is an eighth of it, and JSON may write a byte as six.
const MAX_BODY: usize = 16 * 1_024;
/// The longest life of a link: ten years of 365 days.
const MAX_SECONDS: i32 = 315_360_000;
/// Each browser asks again each time. Otherwise clicks would not be counted, and deletions not seen.
const CACHING: HeaderValue = HeaderValue::from_static("private, max-age=0");

/// All of the service, to be served with the client's address as `ConnectInfo<SocketAddr>` in each request. The
/// redirect is the hot path: no layer that it does not need.
pub fn router(service: Arc<Service>) -> Router {
    let calls = Router::new()
        .route("/links", post(create))
        .route("/links/{code}", get(show).patch(change).delete(delete))
        .route("/links/{code}/stats", get(stats))
        .route("/readyz", get(ready))
        .layer(from_fn_with_state(TIMEOUT, in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TraceLayer::new_for_http().on_failure(()));
    Router::new()
        .route("/{code}", get(redirect))
        .route("/healthz", get(alive))
        .merge(calls)
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(service)
}

// ANCHOR: redirect
async fn redirect(
    State(service): State<Arc<Service>>,
    method: Method,
    code: Code,
    referrer: Referrer,
) -> Result<impl IntoResponse, Error> {
    let link = service.hot.get(&code).await?;
    // HEAD asks where the link leads; it does not go there.
    if method == Method::GET {
        service.clicks.record(&link, referrer);
    }
    Ok((StatusCode::FOUND, [(LOCATION, link.location.clone()), (CACHE_CONTROL, CACHING)]))
}
// ANCHOR_END: redirect

async fn create(
    State(service): State<Arc<Service>>,
    _: WithinLimit,
    Json(body): Json<CreateLink>,
) -> Result<impl IntoResponse, Error> {
    let new = body.parse(&service.ourselves)?;
    let (status, link, token) = match service.creator.create(&new).await? {
        Created::New(link, token) => (StatusCode::CREATED, link, token),
        Created::Existing(link) => (StatusCode::OK, link, None),
    };
    // This process may remember that the code led nowhere.
    service.hot.forget(&link.code).await;
    let location: (HeaderName, _) = (LOCATION, format!("/links/{}", link.code.as_str()));
    Ok((status, [location], Json(LinkBody::new(link, token, &service.ourselves))))
}

async fn show(State(service): State<Arc<Service>>, code: Code) -> Result<Json<LinkBody>, Error> {
    let link = service.shards.link(&code).await?;
    Ok(Json(LinkBody::new(link, None, &service.ourselves)))
}

async fn stats(State(service): State<Arc<Service>>, code: Code) -> Result<Json<Value>, Error> {
    let link = service.shards.link(&code).await?;
    Ok(Json(service.shards.of(&code).stats(&link).await?))
}

// ANCHOR: change
async fn change(
    State(service): State<Arc<Service>>,
    Owned(link): Owned,
    Json(body): Json<ChangeLink>,
) -> Result<Json<LinkBody>, Error> {
    let (url, expires) = body.parse(&service.ourselves)?;
    let url = url.as_ref().map(LongUrl::as_str);
    service.shards.of(&link.code).update(&link, url, expires).await?;
    service.hot.forget(&link.code).await;
    show(State(service), link.code).await
}

async fn delete(
    State(service): State<Arc<Service>>,
    Owned(link): Owned,
) -> Result<StatusCode, Error> {
    let deleted = service.shards.of(&link.code).delete(&link).await?;
    service.hot.forget(&link.code).await;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Error::NotFound) }
}

/// The link in the path, if the request brings its edit token.
struct Owned(Link);

impl FromRequestParts<Arc<Service>> for Owned {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Error> {
        let code = Code::from_request_parts(parts, service).await?;
        let token = EditToken::from_request_parts(parts, service).await?;
        let link = service.shards.link(&code).await?;
        // What is compared are hashes: the time that it takes tells nothing about the token.
        let is_owner = link.edit_token == Some(token.hash());
        is_owner.then_some(Self(link)).ok_or(Error::WrongToken)
    }
}
// ANCHOR_END: change

async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    try_join_all(service.shards.all().iter().map(Store::ping)).await?;
    Ok(Json(json!({ "status": "ready", "dropped_clicks": service.clicks.dropped() })))
}

/// A code in the path. A string that cannot be a code gets 404.
impl<S: Send + Sync> FromRequestParts<S> for Code {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.ok().and_then(|Path(code)| Self::parse(code)).ok_or(Error::NotFound)
    }
}

/// Proof that the client may make one more link. Asked for before the body is read.
struct WithinLimit;

impl FromRequestParts<Arc<Service>> for WithinLimit {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Error> {
        service.limit.check(parts).map(|()| Self)
    }
}

/// What a client sends to make a link.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `url`, and perhaps an alias and an expiry"
)]
struct CreateLink {
    url: String,
    alias: Option<String>,
    expires_in_seconds: Option<i64>,
}

/// What a client sends to change one. What is not there stays as it is; an expiry of `null` is removed (RFC 7396).
#[expect(clippy::option_option, reason = "nothing, null and a number differ")]
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `url`, `expires_in_seconds` or both")]
struct ChangeLink {
    url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    expires_in_seconds: Option<Option<i64>>,
}

/// Tells `null` from nothing.
#[expect(clippy::option_option, reason = "nothing, null and a number differ")]
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl CreateLink {
    /// Parses all fields, so that the client hears of all mistakes at once.
    fn parse(self, ourselves: &Ourselves) -> Result<NewLink, Error> {
        let mut wrong = Vec::new();
        let url = field(&mut wrong, "url", Some(LongUrl::parse(&self.url, ourselves)));
        let alias = field(&mut wrong, "alias", self.alias.map(Code::alias));
        let expires_in_seconds = self.expires_in_seconds.map(seconds);
        let expires_in_seconds = field(&mut wrong, "expires_in_seconds", expires_in_seconds);
        let url = url.filter(|_| wrong.is_empty()).ok_or(Error::Invalid(wrong))?;
        Ok(NewLink { url, alias, expires_in_seconds })
    }
}

impl ChangeLink {
    /// The new URL, and the new expiry, which may be none.
    #[expect(clippy::option_option, reason = "nothing, null and a number differ")]
    fn parse(self, ourselves: &Ourselves) -> Result<(Option<LongUrl>, Option<Option<i32>>), Error> {
        let mut wrong = Vec::new();
        let url = self.url.map(|url| LongUrl::parse(&url, ourselves));
        let url = field(&mut wrong, "url", url);
        let mut expiry =
            |expires: Option<_>| field(&mut wrong, "expires_in_seconds", expires.map(seconds));
        let expires_in_seconds = self.expires_in_seconds.map(&mut expiry);
        if wrong.is_empty() { Ok((url, expires_in_seconds)) } else { Err(Error::Invalid(wrong)) }
    }
}

/// The value of a field, or one more that is wrong.
fn field<T>(wrong: &mut Vec<FieldError>, name: &str, parsed: Option<Result<T, &str>>) -> Option<T> {
    parsed?.map_err(|message| wrong.push(FieldError::new(name, message))).ok()
}

fn seconds(seconds: i64) -> Result<i32, &'static str> {
    let seconds = i32::try_from(seconds).ok().filter(|it| (1..=MAX_SECONDS).contains(it));
    seconds.ok_or("must be from 1 to 315360000, which is ten years")
}

/// A link, as clients see it.
#[derive(Debug, Serialize)]
struct LinkBody {
    #[serde(flatten)]
    link: Link,
    short_url: String,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    edit_token: Option<String>,
}

impl LinkBody {
    /// The link, under the address of this service.
    fn new(link: Link, token: Option<EditToken>, ourselves: &Ourselves) -> Self {
        let own = ourselves.public.as_str().trim_end_matches('/');
        let short_url = format!("{own}/{}", link.code.as_str());
        Self { link, short_url, edit_token: token.map(EditToken::reveal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> Ourselves {
        let url = |url: &str| url.parse().unwrap();
        Ourselves { public: url("http://sho.rt"), listens: url("http://127.0.0.1:3000") }
    }

    fn errors(url: &str, alias: Option<&str>, seconds: Option<i64>) -> Vec<String> {
        let body = CreateLink {
            url: url.to_owned(),
            alias: alias.map(str::to_owned),
            expires_in_seconds: seconds,
        };
        match body.parse(&ourselves()) {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn expiry_is_from_a_second_to_ten_years() {
        for seconds in [1, 60, 315_360_000] {
            assert!(errors("http://a.example", None, Some(seconds)).is_empty(), "{seconds}");
        }
        for seconds in [i64::MIN, -1, 0, 315_360_001, 1 << 32, i64::MAX] {
            assert_eq!(errors("http://a.example", None, Some(seconds)), ["expires_in_seconds"]);
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        assert_eq!(errors("ftp://a", Some("a.b"), Some(0)), ["url", "alias", "expires_in_seconds"]);
    }

    #[test]
    fn a_change_tells_no_expiry_from_an_expiry_that_is_not_mentioned() {
        for (body, expires) in [
            ("{}", None),
            (r#"{"expires_in_seconds": null}"#, Some(None)),
            (r#"{"expires_in_seconds": 60}"#, Some(Some(60))),
        ] {
            let change: ChangeLink = serde_json::from_str(body).unwrap();
            assert_eq!(change.parse(&ourselves()).unwrap().1, expires, "{body}");
        }
    }
}
