//! What does the workbench say, and to whom? The table of calls as handlers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::extract::{Query as Params, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get, routing::post};
use edge::{Json, frame::framed, path::Segment};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    advice::Seen, advice::advise, builder::Builder, drawing::draw, error::Error, error::Result,
    finding::findings, index::Index, index::Name, query::QUERIES, query::Query, store::Store,
    user::NewUser,
};

/// For a whole request and its answer. Advice may build indexes to try them.
const TIMEOUT: Duration = Duration::from_mins(1);

/// What the handlers work with.
#[derive(Debug)]
pub struct Workbench {
    /// The table.
    pub store: Store,
    /// The one that builds.
    pub builder: Builder,
    /// For advice.
    pub seen: Seen,
}

type Bench = State<Arc<Workbench>>;
type Reply = Result<Response>;
type Pairs = Params<BTreeMap<String, Value>>;

/// All of the service.
pub fn router(workbench: Arc<Workbench>) -> Router {
    let calls = Router::new()
        .route("/queries", get(async || Json(json!({ "items": *QUERIES }))))
        .route("/queries/{name}", get(async |name: Segment| Query::find(&name.0).map(Json)))
        .route("/queries/{name}/run", post(run))
        .route("/queries/{name}/plan.svg", get(plan))
        .route("/indexes", get(async |it: Bench| shown(&it).await.map(listed)))
        .route("/indexes/{name}", get(show_index).put(put_index).delete(drop_index))
        .route("/advice", get(async |it: Bench| advise(&it.store, &it.seen).await.map(Json)))
        .route("/users", get(users).post(create))
        .route("/users/{id}", get(show))
        .route("/readyz", get(async |it: Bench| it.store.ping().await.map(|()| "ready")));
    // A body may be many times the largest user.
    framed(calls, TIMEOUT, 64 * 1_024).with_state(workbench)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `params`")]
struct RunInput {
    params: BTreeMap<String, Value>,
}

// ANCHOR: run_query
/// Runs the query, or asks only for its plan.
async fn run(bench: Bench, name: Segment, how: RawQuery, Json(body): Json<RunInput>) -> Reply {
    let query = Query::find(&name.0)?;
    let run = how.0.as_deref() != Some("explain=only");
    let values = query.values(&body.params)?;
    let plan = bench.store.explain(query, &values, run).await?;
    bench.seen.note(query, values);
    let mut answer = json!({ "query": query.name, "nodes": plan.nodes(), "plan": plan });
    if run {
        let pages = |what| plan.number(&format!("Shared {what} Blocks"));
        answer["rows"] = plan.number("Actual Rows").into();
        answer["milliseconds"] = plan.milliseconds().into();
        answer["buffers"] = json!({ "hit": pages("Hit"), "read": pages("Read") });
    }
    Ok(Json(answer).into_response())
}
// ANCHOR_END: run_query

/// The plan as a drawing. Parameters that the URL does not name are those of the example.
async fn plan(bench: Bench, name: Segment, Params(params): Pairs) -> Reply {
    let query = Query::find(&name.0)?;
    let mut values = query.examples();
    values.extend(params);
    let plan = bench.store.explain(query, &query.values(&values)?, true).await?;
    let safe = (CONTENT_SECURITY_POLICY, "default-src 'none'");
    Ok(([(CONTENT_TYPE, "image/svg+xml"), safe], draw(&plan.nodes())).into_response())
}

/// What the catalogue says of each index, and the builds of this process.
async fn shown(workbench: &Workbench) -> Result<BTreeMap<String, Value>> {
    let (builds, all) = (workbench.builder.builds(), workbench.store.indexes().await?);
    let mut shown = BTreeMap::new();
    for index in &all {
        let mut it = json!(index);
        it["findings"] = json!(findings(index, &all));
        shown.insert(index.name.clone(), it);
    }
    for (name, (index, error)) in builds {
        let definition = index.statement("concurrently", &name);
        let new = json!({ "name": name, "state": "failed", "definition": definition });
        let it = shown.entry(name.as_str().to_owned()).or_insert(new);
        if error.is_none() {
            it["state"] = "building".into();
        }
        it["error"] = error.into();
    }
    Ok(shown)
}

fn listed(indexes: BTreeMap<String, Value>) -> Json<Value> {
    Json(json!({ "items": indexes.into_values().collect::<Vec<_>>() }))
}

async fn show_index(bench: Bench, name: Segment) -> Result<Json<Value>> {
    shown(&bench).await?.remove(&name.0).map(Json).ok_or(Error::NOT_FOUND)
}

// ANCHOR: put_index
/// Asks for an index; what becomes of it is at its URL.
async fn put_index(bench: Bench, name: Segment, Json(index): Json<Index>) -> Reply {
    let (parsed, index) = (Name::parse(&name.0)?, index.check()?);
    let ready = bench.builder.ask(parsed, index).await?;
    let status = if ready { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = [(LOCATION, format!("/indexes/{}", name.0))];
    Ok((status, location, show_index(bench, name).await?).into_response())
}
// ANCHOR_END: put_index

async fn drop_index(bench: Bench, name: Segment) -> Result<StatusCode> {
    let name = Name::parse(&name.0).map_err(|_| Error::NOT_FOUND)?;
    bench.builder.drop_index(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create(bench: Bench, Json(new): Json<NewUser>) -> Reply {
    let user = bench.store.create(&new).await?;
    let location = [(LOCATION, format!("/users/{}", user["id"]))];
    Ok((StatusCode::CREATED, location, Json(user)).into_response())
}

/// Users with one address. It is the query `by_email`, and counts as one.
async fn users(bench: Bench, Params(params): Pairs) -> Reply {
    let query = Query::find("by_email")?;
    let refused = |_| Error::invalid("email", "is the only parameter, and has to be there");
    let values = query.values(&params).map_err(refused)?;
    let items = bench.store.find_by_email(params["email"].as_str().unwrap_or_default()).await?;
    bench.seen.note(query, values);
    Ok(Json(json!({ "items": items })).into_response())
}

async fn show(bench: Bench, Segment(id): Segment) -> Result<Json<Value>> {
    // Written as we write it: one user has one URL.
    let parsed = id.parse().ok().filter(|parsed: &i64| parsed.to_string() == id);
    bench.store.find(parsed.ok_or(Error::NOT_FOUND)?).await.map(Json)
}
