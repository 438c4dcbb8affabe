//! How is each call of the table answered? By these handlers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION},
        request::Parts,
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use edge::{FieldError, Json, frame::framed};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    error::Error,
    service::Service,
    user::{Email, Name, UserId},
    value::{Read, Source},
};

/// The longest time for a request and its answer, without the wait of a change that cannot reach Redis.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Much more than a name and an address take, even if JSON writes each byte as six.
const MAX_BODY: usize = 16 * 1_024;
/// Users in one request: their answer is well under a megabyte.
const MAX_IDS: usize = 100;
const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// All of the service.
pub fn router(service: Arc<Service>) -> Router {
    let longest = TIMEOUT + service.trust.period;
    let calls = Router::new()
        .route("/users", post(create).get(show_many))
        .route("/users/{id}", get(show).put(update).delete(delete))
        .route("/readyz", get(ready));
    framed(calls, longest, MAX_BODY).with_state(service)
}

async fn create(
    State(service): State<Arc<Service>>,
    Json(body): Json<UserBody>,
) -> Result<impl IntoResponse, Error> {
    let (name, email) = body.parse()?;
    let user = service.create(&name, &email).await?;
    let headers = [(LOCATION, format!("/users/{}", user.id.get())), (ETAG, etag(user.version))];
    Ok((StatusCode::CREATED, headers, Json(user)))
}

// ANCHOR: show
async fn show(State(service): State<Arc<Service>>, id: UserId) -> Result<Response, Error> {
    let (user, source) = service.get(id).await?;
    let answer = match user {
        Some(user) => (JSON, [(ETAG, etag(user.version))], user.json).into_response(),
        None => Error::NotFound.into_response(),
    };
    Ok(([(CACHE_STATUS, source.to_string())], answer).into_response())
}
// ANCHOR_END: show

async fn show_many(
    State(service): State<Arc<Service>>,
    query: Result<Query<IdsQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Error> {
    let ids = parse_ids(&query.map(|Query(query)| query.ids).unwrap_or_default())?;
    let (status, users) = many(&ids, service.get_many(&ids).await?);
    Ok(([(CACHE_STATUS, status)], JSON, users))
}

async fn update(
    State(service): State<Arc<Service>>,
    id: UserId,
    headers: HeaderMap,
    Json(body): Json<UserBody>,
) -> Result<impl IntoResponse, Error> {
    let (versions, (name, email)) = (if_match(&headers)?, body.parse()?);
    let user = service.update(id, versions.as_deref(), &name, &email).await?;
    Ok(([(ETAG, etag(user.version))], Json(user)))
}

async fn delete(State(service): State<Arc<Service>>, id: UserId) -> Result<StatusCode, Error> {
    service.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Without Redis the service is slower, but it is ready.
async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    service.store.ping().await?;
    let believed = service.trust.believed().is_some();
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
/// Which versions a change is meant for; `None` for all. A client must say. Otherwise, of two clients that read and
/// then write, the second would undo what the first has changed, and neither would know.
fn if_match(headers: &HeaderMap) -> Result<Option<Vec<i64>>, Error> {
    let lines = headers.get_all(IF_MATCH).iter().filter_map(|line| line.to_str().ok());
    let tags: Vec<_> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    match tags.as_slice() {
        [] => Err(Error::NoIfMatch),
        ["*"] => Ok(None),
        _ => {
            // A tag that we did not give out matches nothing, and neither does a weak one.
            let ours = tags.iter().filter_map(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
            Ok(Some(ours.filter_map(|version| version.parse().ok()).collect()))
        }
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

/// Each id once, in the order in which they are asked for.
fn parse_ids(ids: &str) -> Result<Vec<UserId>, Error> {
    let message = "must be given once: 1 to 100 ids with commas between them";
    let wrong = || Error::Invalid(vec![FieldError::new("ids", message)]);
    let ids: Option<Vec<_>> = ids.split(',').map(UserId::parse).collect();
    let mut ids = ids.filter(|ids| ids.len() <= MAX_IDS).ok_or_else(wrong)?;
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

/// Many users as JSON, and what `Cache-Status` says of the first that was not in the cache, or of the first of all.
fn many(ids: &[UserId], reads: Vec<Read>) -> (String, Vec<u8>) {
    let sources: Vec<_> = reads.iter().map(|(_, source)| source).collect();
    let missed = sources.iter().find(|it| !matches!(it, Source::Near(_) | Source::Hit(_)));
    let status = missed.or(sources.first()).map(ToString::to_string).unwrap_or_default();
    let (mut users, mut missing) = (Vec::new(), Vec::new());
    for (id, (user, _)) in ids.iter().zip(reads) {
        match user {
            Some(user) => users.push(user.json),
            None => missing.push(id.get().to_string()),
        }
    }
    // Each user is a line of JSON already.
    let users: Vec<_> = users.iter().map(|user| user.trim_ascii_end()).collect();
    let missing = format!("],\"missing\":[{}]}}\n", missing.join(","));
    (status, [br#"{"users":["#, users.join(&b',').as_slice(), missing.as_bytes()].concat())
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
    fn many_are_a_hit_only_if_all_of_them_are() {
        let ids = ["1", "2"].map(|id| UserId::parse(id).unwrap());
        let miss = Source::Miss { stored: true };
        for (sources, status) in [
            ([Source::Bypass, Source::Bypass], "redis; fwd=bypass"),
            ([Source::Hit(9), miss], "redis; fwd=miss; stored"),
            ([Source::Hit(9), Source::Near(8)], "redis; hit; ttl=9"),
        ] {
            let reads = sources.map(|source| (None, source)).to_vec();
            let body = b"{\"users\":[],\"missing\":[1,2]}\n".to_vec();
            assert_eq!(many(&ids, reads), (status.to_owned(), body));
        }
    }

    #[test]
    fn ids_are_a_list_of_at_most_a_hundred() {
        let parse = parse_ids;
        assert_eq!(parse("3,1,3").unwrap().len(), 2);
        let hundred: Vec<_> = (1..=100).map(|id| id.to_string()).collect();
        assert_eq!(parse(&hundred.join(",")).unwrap().len(), 100);
        for bad in ["", ",", "1,", "1,,2", "1, 2", "0", "-1", "x", &["7"; 101].join(",")] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
