//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION},
        request::Parts,
    },
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use edge::{
    FieldError, Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    error::Error,
    service::Service,
    user::{Email, IfMatch, Name, UserId},
    value::Users,
};

/// For a whole request and its answer, beside the wait of a change that cannot reach Redis.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Name and address are an eighth of it, and JSON may write a byte as six.
const MAX_BODY: usize = 16 * 1_024;
/// Users in one request: their answer is well under a megabyte.
const MAX_IDS: usize = 100;
const JSON: (HeaderName, HeaderValue) =
    (CONTENT_TYPE, HeaderValue::from_static("application/json"));
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// All of the service.
pub fn router(service: Arc<Service>) -> Router {
    let longest = TIMEOUT + service.reader.trust.period;
    Router::new()
        .route("/users", post(create).get(show_many))
        .route("/users/{id}", get(show).put(update).delete(delete))
        .route("/readyz", get(ready))
        .layer(from_fn_with_state(longest, in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TraceLayer::new_for_http().on_failure(()))
        .route("/healthz", get(alive))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(service)
}

async fn create(
    State(service): State<Arc<Service>>,
    Json(body): Json<UserBody>,
) -> Result<impl IntoResponse, Error> {
    let (name, email) = body.parse()?;
    let user = service.writer.create(&name, &email).await?;
    let headers = [(LOCATION, format!("/users/{}", user.id.get())), (ETAG, etag(user.version))];
    Ok((StatusCode::CREATED, headers, Json(user)))
}

// ANCHOR: show
async fn show(State(service): State<Arc<Service>>, id: UserId) -> Result<Response, Error> {
    let (user, source) = service.reader.get(id).await?;
    let answer = match user {
        Some(user) => ([JSON], [(ETAG, etag(user.version))], user.json).into_response(),
        None => Error::NotFound.into_response(),
    };
    Ok(([(CACHE_STATUS, source.to_string())], answer).into_response())
}
// ANCHOR_END: show

async fn show_many(
    State(service): State<Arc<Service>>,
    query: Result<Query<IdsQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Error> {
    let Query(query) = query.map_err(|_| Error::field("ids", "must be given once: ?ids=1,2,3"))?;
    let ids = query.parse()?;
    let (users, hits) = service.reader.get_many(&ids).await?;
    let (status, users) = many(&ids, users, hits);
    Ok(([(CACHE_STATUS, HeaderValue::from_static(status)), JSON], users))
}

async fn update(
    State(service): State<Arc<Service>>,
    id: UserId,
    versions: IfMatch,
    Json(body): Json<UserBody>,
) -> Result<impl IntoResponse, Error> {
    let (name, email) = body.parse()?;
    let user = service.writer.update(id, &versions, &name, &email).await?;
    Ok(([(ETAG, etag(user.version))], Json(user)))
}

async fn delete(State(service): State<Arc<Service>>, id: UserId) -> Result<StatusCode, Error> {
    service.writer.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Without Redis it is slower, and ready all the same.
async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    service.writer.store.ping().await?;
    let believed = service.reader.trust.believed().is_some();
    Ok(Json(json!({ "status": "ready", "redis": if believed { "believed" } else { "away" } })))
}

/// An id in the path. A string that cannot be an id gets 404.
impl<S: Send + Sync> FromRequestParts<S> for UserId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.ok().and_then(|Path(id)| Self::parse(&id)).ok_or(Error::NotFound)
    }
}

// ANCHOR: if_match
/// A client must say which version it has read. Otherwise, of two who read and then write, the second would undo what
/// the first has changed, and neither would know.
impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let lines: Vec<_> = parts.headers.get_all(IF_MATCH).iter().collect();
        if lines.is_empty() {
            return Err(Error::NoIfMatch);
        }
        let tags = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|it| it.split(','));
        let tags: Vec<_> = tags.map(str::trim).collect();
        if tags == ["*"] {
            return Ok(Self(None));
        }
        // A tag that is none of ours matches nothing, and so does a weak one.
        let ours = tags.iter().filter_map(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
        Ok(Self(Some(ours.filter_map(|version| version.parse().ok()).collect())))
    }
}
// ANCHOR_END: if_match

fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// What a client sends to make or to change a user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `name` and `email`")]
struct UserBody {
    name: String,
    email: String,
}

impl UserBody {
    /// Parses all fields, so that the client hears of all mistakes at once.
    fn parse(&self) -> Result<(Name, Email), Error> {
        match (Name::parse(&self.name), Email::parse(&self.email)) {
            (Ok(name), Ok(email)) => Ok((name, email)),
            (name, email) => {
                let wrong = [("name", name.err()), ("email", email.err())];
                let wrong = wrong.into_iter().filter_map(|(field, error)| Some((field, error?)));
                Err(Error::Invalid(wrong.map(|(field, it)| FieldError::new(field, it)).collect()))
            }
        }
    }
}

/// Which users: `?ids=1,2,3`.
#[derive(Debug, Deserialize)]
struct IdsQuery {
    ids: String,
}

impl IdsQuery {
    fn parse(&self) -> Result<Vec<UserId>, Error> {
        let ids: Option<Vec<_>> = self.ids.split(',').map(UserId::parse).collect();
        let ids = ids.filter(|ids| ids.len() <= MAX_IDS);
        ids.ok_or_else(|| Error::field("ids", "must be 1 to 100 ids with commas between them"))
    }
}

/// Many users as JSON, in the order in which they were asked for, and what `Cache-Status` says of them.
fn many(ids: &[UserId], mut found: Users, hits: Option<usize>) -> (&'static str, Vec<u8>) {
    let status = match hits {
        None => "redis; fwd=bypass",
        Some(hits) if hits == found.len() => "redis; hit",
        Some(0) => "redis; fwd=miss",
        Some(_) => "redis; fwd=partial",
    };
    let (mut users, mut missing) = (Vec::new(), Vec::new());
    for id in ids {
        match found.remove(id) {
            Some(Some(user)) => users.push(user.json),
            Some(None) => missing.push(id.get().to_string()),
            // Asked for twice, and listed once.
            None => {}
        }
    }
    // Each user is a line of JSON already.
    let users: Vec<_> = users.iter().map(|user| user.trim_ascii_end()).collect();
    let missing = format!("],\"missing\":[{}]}}\n", missing.join(","));
    let users = users.join(&b',');
    (status, [br#"{"users":["#, users.as_slice(), missing.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told_at_once() {
        let body = UserBody { name: " ".to_owned(), email: "nobody".to_owned() };
        let Err(Error::Invalid(errors)) = body.parse() else { panic!("it should be refused") };
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["name", "email"]);
    }

    #[test]
    fn many_says_how_much_of_it_the_cache_knew() {
        let ids = ["1", "2"].map(|id| UserId::parse(id).unwrap());
        for (hits, status) in [
            (None, "redis; fwd=bypass"),
            (Some(0), "redis; fwd=miss"),
            (Some(1), "redis; fwd=partial"),
            (Some(2), "redis; hit"),
        ] {
            let users = ids.iter().map(|&id| (id, None)).collect();
            let told = many(&ids, users, hits);
            assert_eq!(told, (status, b"{\"users\":[],\"missing\":[1,2]}\n".to_vec()));
        }
    }

    #[test]
    fn ids_are_a_list_of_at_most_a_hundred() {
        let parse = |ids: &str| IdsQuery { ids: ids.to_owned() }.parse();
        assert_eq!(parse("3,1,3").unwrap().len(), 3);
        assert_eq!(parse(&["7"; 100].join(",")).unwrap().len(), 100);
        for bad in ["", ",", "1,", "1,,2", "1, 2", "0", "-1", "x", &["7"; 101].join(",")] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
