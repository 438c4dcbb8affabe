//! How is each call of the table answered? By these handlers.

#![expect(clippy::option_option, reason = "in a body, a missing field, null and a number differ")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, FromRequestParts, Path, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, LOCATION},
        request::Parts,
    },
    response::IntoResponse,
    routing::{get, post},
};
use edge::{
    FieldError, Json, Mistakes,
    frame::{framed, method_not_allowed, panicked},
};
use futures_util::future::try_join_all;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    access::EditToken,
    clicks::referrer,
    code::Code,
    create::Created,
    error::Error,
    long_url::{LongUrl, Ourselves},
    service::Service,
    store::{Link, Store},
};

/// The longest time for a request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Eight times the longest URL, because JSON may write one byte as six.
const MAX_BODY: usize = 16 * 1_024;
/// The longest life of a link: ten years of 365 days.
const MAX_SECONDS: i64 = 315_360_000;
/// A browser must ask again each time. Otherwise we would not count its clicks, and it would not notice a deletion.
const CACHING: HeaderValue = HeaderValue::from_static("private, max-age=0");

/// All of the service, to be served with the client's address as `ConnectInfo<SocketAddr>` in each request. The
/// redirect is the hot path, so it has no layer that it does not need.
pub fn router(service: Arc<Service>) -> Router {
    let calls = Router::new()
        .route("/links", post(create))
        .route("/links/{code}", get(show).patch(change).delete(delete))
        .route("/links/{code}/stats", get(stats))
        .route("/readyz", get(ready));
    Router::new()
        .route("/{code}", get(redirect))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .merge(framed(calls, TIMEOUT, MAX_BODY))
        .with_state(service)
}

// ANCHOR: redirect
async fn redirect(
    State(service): State<Arc<Service>>,
    code: Code,
    request: Request,
) -> Result<impl IntoResponse, Error> {
    let hot = service.hot.get(&code).await?;
    // HEAD only asks where the link leads, so it counts as no click.
    if request.method() == Method::GET {
        service.clicks[hot.shard].record(&hot.link, referrer(request.headers()));
    }
    Ok((StatusCode::FOUND, [(LOCATION, hot.link.url.clone())], [(CACHE_CONTROL, CACHING)]))
}
// ANCHOR_END: redirect

async fn create(
    State(service): State<Arc<Service>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(body): Json<Body>,
) -> Result<impl IntoResponse, Error> {
    service.limit.check(peer.ip(), &headers).await?;
    let Fields { url, alias, expires_in_seconds } = body.parse(&service.ourselves)?;
    let url = url.ok_or_else(|| Error::Invalid(vec![FieldError::new("url", "is missing")]))?;
    let created = service.creator.create(&url, alias.as_ref(), expires_in_seconds.flatten());
    let (status, link, token) = match created.await? {
        Created::New(link, token) => (StatusCode::CREATED, link, token),
        Created::Existing(link) => (StatusCode::OK, link, None),
    };
    // This process may remember that the code led nowhere.
    service.hot.forget(&link.code).await;
    let location = [(LOCATION, format!("/links/{}", link.code.as_str()))];
    Ok((status, location, shown(&service, link, token)))
}

async fn show(State(service): State<Arc<Service>>, code: Code) -> Result<Json<Shown>, Error> {
    let link = service.shards.link(&code).await?;
    Ok(shown(&service, link, None))
}

async fn stats(State(service): State<Arc<Service>>, code: Code) -> Result<Json<Value>, Error> {
    let link = service.shards.link(&code).await?;
    Ok(Json(service.shards.of(&code).stats(&link).await?))
}

// ANCHOR: change
async fn change(
    State(service): State<Arc<Service>>,
    code: Code,
    token: EditToken,
    Json(body): Json<Body>,
) -> Result<Json<Shown>, Error> {
    let link = owned(&service, &code, &token).await?;
    let Fields { url, alias, expires_in_seconds } = body.parse(&service.ourselves)?;
    if alias.is_some() {
        return Err(Error::Invalid(vec![FieldError::new("alias", "cannot be changed")]));
    }
    service.shards.of(&code).update(&link, url.as_ref(), expires_in_seconds).await?;
    service.hot.forget(&code).await;
    show(State(service), code).await
}

async fn delete(
    State(service): State<Arc<Service>>,
    code: Code,
    token: EditToken,
) -> Result<StatusCode, Error> {
    let link = owned(&service, &code, &token).await?;
    let deleted = service.shards.of(&code).delete(&link).await?;
    service.hot.forget(&code).await;
    if deleted > 0 { Ok(StatusCode::NO_CONTENT) } else { Err(Error::NotFound) }
}

/// The link, if this is its edit token.
async fn owned(service: &Service, code: &Code, token: &EditToken) -> Result<Link, Error> {
    let link = service.shards.link(code).await?;
    // We compare hashes, so the time that this takes tells nothing about the token.
    let is_owner = link.edit_token == Some(token.hash());
    is_owner.then_some(link).ok_or(Error::WrongToken)
}
// ANCHOR_END: change

async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    try_join_all(service.shards.all().iter().map(Store::ping)).await?;
    let dropped: u64 = service.clicks.iter().map(|clicks| clicks.dropped()).sum();
    Ok(Json(json!({ "status": "ready", "dropped_clicks": dropped })))
}

/// A code in the path. A string that cannot be a code gets 404.
impl<S: Send + Sync> FromRequestParts<S> for Code {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.ok().and_then(|Path(code)| Self::parse(code)).ok_or(Error::NotFound)
    }
}

/// What a client sends to make a link or to change one. A field that is missing stays as it is, and an expiry of `null`
/// removes the expiry (RFC 7396).
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with a `url`, and perhaps more")]
struct Body {
    url: Option<String>,
    alias: Option<String>,
    #[serde(default, deserialize_with = "given")]
    expires_in_seconds: Option<Option<i64>>,
}

/// Tells `null` from a missing field.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The fields of a [`Body`], parsed.
struct Fields {
    url: Option<LongUrl>,
    alias: Option<Code>,
    expires_in_seconds: Option<Option<i64>>,
}

impl Body {
    /// Parses all fields, so that the client hears of all mistakes at once.
    fn parse(self, ourselves: &Ourselves) -> Result<Fields, Error> {
        let mut mistakes = Mistakes::default();
        let url = self.url.and_then(|url| mistakes.note("url", LongUrl::parse(&url, ourselves)));
        let alias = self.alias.and_then(|alias| mistakes.note("alias", Code::alias(alias)));
        let mut expiry = |expiry| mistakes.note("expires_in_seconds", seconds(expiry));
        let expires_in_seconds = self.expires_in_seconds.map(|it| it.and_then(&mut expiry));
        mistakes.finish(Some(Fields { url, alias, expires_in_seconds })).map_err(Error::Invalid)
    }
}

fn seconds(seconds: i64) -> Result<i64, &'static str> {
    let is_allowed = (1..=MAX_SECONDS).contains(&seconds);
    is_allowed.then_some(seconds).ok_or("must be from 1 to 315360000, which is ten years")
}

/// A link, as clients see it.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    link: Link,
    short_url: String,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    edit_token: Option<EditToken>,
}

/// The link, under the address of this service.
fn shown(service: &Service, link: Link, edit_token: Option<EditToken>) -> Json<Shown> {
    let own = service.ourselves.public.as_str().trim_end_matches('/');
    let short_url = format!("{own}/{}", link.code.as_str());
    Json(Shown { link, short_url, edit_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> Ourselves {
        let url = |url: &str| url.parse().unwrap();
        Ourselves { public: url("http://sho.rt"), listens: url("http://127.0.0.1:3000") }
    }

    fn errors(url: &str, alias: Option<&str>, seconds: Option<i64>) -> Vec<String> {
        let body = Body {
            url: Some(url.to_owned()),
            alias: alias.map(str::to_owned),
            expires_in_seconds: Some(seconds),
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
            let change: Body = serde_json::from_str(body).unwrap();
            let fields = change.parse(&ourselves()).unwrap();
            assert_eq!(fields.expires_in_seconds, expires, "{body}");
        }
    }
}
