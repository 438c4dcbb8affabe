//! What does the workbench say, and to whom? The table of calls as handlers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get, routing::post};
use edge::{Json, frame::framed, json::JsonRejection};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::form_urlencoded::parse;

use crate::advice::{Advice, Seen, advise};
use crate::builder::{Asked, Build, Builder};
use crate::drawing::draw;
use crate::error::{Error, Result};
use crate::finding::{Finding, findings};
use crate::index::{IndexInput, Name};
use crate::query::{QUERIES, Query};
use crate::store::{Existing, Progress, Store};
use crate::user::{NameInput, User, UserInput};

/// For a whole request and its answer. Advice may build indexes to try them.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Many times the largest user.
const MAX_BODY: usize = 64 * 1_024;

/// What the handlers work with.
#[derive(Debug)]
pub struct Workbench {
    store: Store,
    builder: Builder,
    seen: Seen,
}

impl Workbench {
    /// A workbench that has seen nothing yet.
    pub fn new(store: Store, builder: Builder) -> Self {
        Self { store, builder, seen: Seen::default() }
    }
}

type Bench = State<Arc<Workbench>>;
type Body<T> = std::result::Result<Json<T>, JsonRejection>;
type Reply = Result<Response>;

/// All of the service.
pub fn router(workbench: Arc<Workbench>) -> Router {
    let calls = Router::new()
        .route("/queries", get(async || Json(json!({ "items": QUERIES }))))
        .route("/queries/{name}", get(show_query))
        .route("/queries/{name}/run", post(run))
        .route("/queries/{name}/plan.svg", get(plan))
        .route("/indexes", get(indexes))
        .route("/indexes/{name}", get(show_index).put(put_index).delete(drop_index))
        .route("/advice", get(advice))
        .route("/users", get(users).post(create))
        .route("/users/{id}", get(show).patch(rename).delete(delete))
        .route("/readyz", get(ready));
    framed(calls, TIMEOUT, MAX_BODY).with_state(workbench)
}

/// A part of the path. One that is no text is not found.
#[derive(Debug)]
struct Segment(String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(text)| Self(text)).map_err(|_| Error::NOT_FOUND)
    }
}

impl Segment {
    /// A user's id, written as we write it.
    fn id(&self) -> Result<i64> {
        let id = self.0.parse::<i64>().ok().filter(|id| *id > 0 && id.to_string() == self.0);
        id.ok_or(Error::NOT_FOUND)
    }

    /// An index's name.
    fn name(&self) -> Result<Name> {
        Name::parse(&self.0).map_err(|_| Error::NOT_FOUND)
    }
}

async fn ready(bench: Bench) -> Result<Json<Value>> {
    bench.store.ping().await?;
    Ok(Json(json!({ "status": "ready" })))
}

async fn show_query(name: Segment) -> Result<Json<&'static Query>> {
    Query::find(&name.0).map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `params`")]
struct RunInput {
    params: BTreeMap<String, Value>,
}

// ANCHOR: run_query
/// Runs the query, or asks only for its plan.
async fn run(bench: Bench, name: Segment, RawQuery(how): RawQuery, body: Body<RunInput>) -> Reply {
    let query = Query::find(&name.0)?;
    let run = match how.as_deref().unwrap_or_default() {
        "" => true,
        "explain=only" => false,
        _ => return Err(Error::invalid("explain", "the only parameter is explain=only")),
    };
    let values = query.values(&body?.0.params)?;
    let plan = bench.store.explain(query, &values, run).await?;
    bench.seen.note(query, &values);
    let (hit, read) = plan.buffers();
    let seen = run.then(|| {
        json!({
            "rows": plan.rows(), "milliseconds": plan.milliseconds(),
            "buffers": { "hit": hit, "read": read },
        })
    });
    let mut answer = seen.unwrap_or_else(|| json!({}));
    answer["query"] = query.name.into();
    answer["nodes"] = json!(plan.nodes());
    answer["plan"] = json!(plan);
    Ok(Json(answer).into_response())
}
// ANCHOR_END: run_query

/// The plan as a drawing. Parameters that the URL does not name are those of the example.
async fn plan(bench: Bench, name: Segment, RawQuery(params): RawQuery) -> Reply {
    let query = Query::find(&name.0)?;
    let examples = query.params.iter().map(|it| (it.name.to_owned(), Value::from(it.example)));
    let mut values: BTreeMap<_, _> = examples.collect();
    values.extend(pairs(params.as_deref())?);
    let plan = bench.store.explain(query, &query.values(&values)?, true).await?;
    let safe = (CONTENT_SECURITY_POLICY, "default-src 'none'");
    Ok(([(CONTENT_TYPE, "image/svg+xml"), safe], draw(&plan.nodes())).into_response())
}

/// The parameters of a URL, each of them once.
fn pairs(query: Option<&str>) -> Result<BTreeMap<String, Value>> {
    let mut pairs = BTreeMap::new();
    for (name, value) in parse(query.unwrap_or_default().as_bytes()).into_owned() {
        if pairs.insert(name.clone(), Value::from(value)).is_some() {
            return Err(Error::invalid(name, "is there twice"));
        }
    }
    Ok(pairs)
}

/// An index as a client sees it.
#[derive(Serialize)]
struct Shown {
    name: String,
    state: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    existing: Option<Existing>,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// What the catalogue and the builds of this process say of one name.
fn shown(name: String, all: &[Existing], build: Option<&Build>) -> Shown {
    let existing = all.iter().find(|it| it.name == name).cloned();
    let error = build.and_then(|build| build.failed);
    let builds = build.is_some_and(|build| build.failed.is_none());
    let is = |what: fn(&Existing) -> bool| existing.as_ref().is_some_and(what);
    let state = match () {
        () if builds || is(|it| it.building) => "building",
        () if is(|it| it.valid) => "ready",
        () if error.is_some() => "failed",
        () => "invalid",
    };
    let found = existing.as_ref().filter(|_| state != "building");
    let findings = found.map(|it| findings(it, all)).unwrap_or_default();
    Shown { name, state, existing, findings, progress: None, error }
}

async fn indexes(bench: Bench) -> Reply {
    let (builds, all) = (bench.builder.all(), bench.store.indexes().await?);
    let build = |name: &str| builds.iter().find(|(it, _)| it.as_str() == name).map(|(_, it)| it);
    let waiting = builds.iter().map(|(name, _)| name.as_str().to_owned());
    let mut names: Vec<_> = waiting.chain(all.iter().map(|it| it.name.clone())).collect();
    names.sort();
    names.dedup();
    let items = names.into_iter().map(|name| shown(name.clone(), &all, build(&name)));
    Ok(Json(json!({ "items": items.collect::<Vec<_>>() })).into_response())
}

async fn show_index(bench: Bench, segment: Segment) -> Reply {
    let name = segment.name()?;
    let build = bench.builder.find(&name);
    let all = bench.store.indexes().await?;
    if build.is_none() && all.iter().all(|it| it.name != name.as_str()) {
        return Err(Error::NOT_FOUND);
    }
    let progress = bench.store.progress(&name).await?;
    let shown = shown(segment.0, &all, build.as_ref());
    Ok(Json(Shown { progress, ..shown }).into_response())
}

// ANCHOR: put_index
/// Asks for an index; what becomes of it is at its URL.
async fn put_index(bench: Bench, name: Segment, body: Body<IndexInput>) -> Reply {
    let parsed = Name::parse(&name.0).map_err(|message| Error::invalid("name", message))?;
    let index = body?.0.parse()?;
    let definition = index.statement("concurrently", &parsed);
    let (status, state) = match bench.builder.ask(parsed, index).await? {
        Asked::Ready => (StatusCode::OK, "ready"),
        Asked::Accepted => (StatusCode::ACCEPTED, "building"),
    };
    let location = [(LOCATION, format!("/indexes/{}", name.0))];
    let body = json!({ "name": name.0, "state": state, "definition": definition });
    Ok((status, location, Json(body)).into_response())
}
// ANCHOR_END: put_index

async fn drop_index(bench: Bench, name: Segment) -> Result<StatusCode> {
    bench.builder.drop(&name.name()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn advice(bench: Bench) -> Result<Json<Advice>> {
    advise(&bench.store, &bench.seen).await.map(Json)
}

async fn create(bench: Bench, body: Body<UserInput>) -> Reply {
    let user = bench.store.create(&body?.0.parse()?).await?;
    let location = [(LOCATION, format!("/users/{}", user.id))];
    Ok((StatusCode::CREATED, location, Json(user)).into_response())
}

/// Users with one address. It is the query `by_email`, and counts as one.
async fn users(bench: Bench, RawQuery(params): RawQuery) -> Reply {
    let query = Query::find("by_email")?;
    let values = query.values(&pairs(params.as_deref())?).map_err(|error| match error {
        Error::Invalid(_) => Error::invalid("email", "is the only parameter, and has to be there"),
        other => other,
    })?;
    let [crate::query::Value::Text(email)] = &values[..] else { return Err(Error::NOT_FOUND) };
    let items = bench.store.find_by_email(email).await?;
    bench.seen.note(query, &values);
    Ok(Json(json!({ "items": items })).into_response())
}

async fn show(bench: Bench, id: Segment) -> Result<Json<User>> {
    bench.store.find(id.id()?).await.map(Json)
}

async fn rename(bench: Bench, id: Segment, body: Body<NameInput>) -> Result<Json<User>> {
    let (id, name) = (id.id()?, body?.0.parse()?);
    bench.store.rename(id, &name).await.map(Json)
}

async fn delete(bench: Bench, id: Segment) -> Result<StatusCode> {
    bench.store.delete(id.id()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
