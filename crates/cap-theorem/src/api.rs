//! What does a node say over HTTP? The table of calls as handlers, and the one call between nodes.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get, routing::post};
use edge::header::{ServiceKey, only, with_key};
use edge::{Json, frame::framed, path::Segment};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded::parse;

use crate::clock::now;
use crate::context::Signer;
use crate::coordinator::{Coordinator, Level};
use crate::draw::{Marks, draw};
use crate::error::{Error, Result};
use crate::history::{Action, History, Operation};
use crate::peers::{Exchange, Known};
use crate::record::{Change, Key, Kind, Record, Slot, within_limit};
use crate::version::Vector;

/// A value in which every byte is escaped takes six times its length.
const MAX_BODY: usize = 128 * 1_024;
/// All siblings of a key, escaped.
const MAX_EXCHANGE: usize = 32 * 1_024 * 1_024;

/// What the handlers work with.
#[derive(Clone, Debug)]
pub struct Node {
    /// Asks the other nodes.
    pub coordinator: Coordinator,
    /// Signs what clients carry from a read to a write.
    pub signer: Signer,
    /// What this node was asked.
    pub history: Arc<History>,
}

/// What a query says.
struct Query {
    slot: Slot,
    level: Level,
}

impl Query {
    /// Parses the key and the query. `level` is the name of the parameter that counts nodes: `r`, `w`, or none. A parameter
    /// that is unknown, or there twice, is a mistake: ignoring `w=qourum` would be a promise that nobody keeps.
    fn parse(key: String, uri: &Uri, level: Option<&str>) -> Result<Self> {
        let key = Key::parse(key).map_err(|message| Error::invalid("key", message))?;
        let (mut kind, mut asked) = (None, None);
        for (name, value) in parse(uri.query().unwrap_or_default().as_bytes()) {
            let wrong = |message: &str| Error::invalid(&*name, message);
            let place = match &*name {
                "kind" => {
                    let found = Kind::ALL.iter().find(|(word, _)| *word == value);
                    let found = found
                        .ok_or_else(|| wrong("must be siblings, lww, atomic, counter or set"))?;
                    kind.replace(found.1).is_some()
                }
                name if Some(name) == level => {
                    let found = Level::ALL.iter().find(|(word, _)| *word == value);
                    let found = found.ok_or_else(|| wrong("must be 1, quorum or all"))?;
                    asked.replace(found.1).is_some()
                }
                _ => return Err(wrong("is no parameter of this call")),
            };
            if place {
                return Err(wrong("is there twice"));
            }
        }
        let kind = kind.unwrap_or(Kind::Siblings);
        if kind == Kind::Atomic && asked.is_some_and(|level| level != Level::Quorum) {
            let name = level.unwrap_or_default();
            return Err(Error::invalid(name, "an atomic register asks a quorum, always"));
        }
        Ok(Self { slot: Slot { kind, key }, level: asked.unwrap_or(Level::Quorum) })
    }
}

/// All calls. `longest` limits the time of a request.
pub fn router(node: Node, cluster_key: &str, longest: Duration) -> Router {
    let between_nodes = Router::new()
        .route("/replica", post(replica))
        .layer(DefaultBodyLimit::max(MAX_EXCHANGE))
        .layer(from_fn_with_state(ServiceKey::new(Some(cluster_key)), with_key));
    let calls = Router::new()
        .route("/keys/{key}", get(read).put(put).post(change))
        .route("/keys/{key}/versions", get(versions))
        .route("/cluster", get(cluster))
        .route("/history", get(history))
        .route("/history.svg", get(drawing))
        .route("/readyz", get(ready))
        .merge(between_nodes);
    framed(calls, longest, MAX_BODY).with_state(node)
}

/// The body of a write.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewValue {
    value: String,
    /// What the client has read. Without it, the write replaces nothing.
    context: Option<String>,
}

/// The body of a change to a counter or a set: one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Increment {
    add: Option<i64>,
    insert: Option<String>,
    remove: Option<String>,
}

// ANCHOR: handlers
/// Writes a value.
async fn put(
    State(node): State<Node>,
    Segment(key): Segment,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<NewValue>,
) -> Result<Json<Value>> {
    let Query { slot, level } = Query::parse(key, &uri, Some("w"))?;
    let past = past(&node.signer, &slot, body.context.as_deref())?;
    let value = within_limit(body.value).map_err(|message| Error::invalid("value", message))?;
    let change = Change::Put { value: value.clone(), past };
    let (writer, of) = (node.clone(), slot.clone());
    let written = node.coordinator.to_the_end(async move {
        let called = now();
        let written = writer.coordinator.write(&of, change, level).await;
        // These may take effect.
        if matches!(written, Ok(_) | Err(Error::TooFew { .. } | Error::Disk(_))) {
            let returned = written.is_ok().then(now);
            remember(&writer, &of, &headers, Action::Write(value), (called, returned));
        }
        written
    });
    Ok(written_as(&node, &slot, &written.await?))
}

/// Changes a counter or a set.
async fn change(
    State(node): State<Node>,
    Segment(key): Segment,
    uri: Uri,
    Json(body): Json<Increment>,
) -> Result<Json<Value>> {
    let Query { slot, level } = Query::parse(key, &uri, Some("w"))?;
    let change = match (slot.kind, body.add, body.insert, body.remove) {
        (Kind::Counter, Some(amount), None, None) => Change::Add(amount),
        (Kind::Set, None, Some(item), None) => {
            Change::Insert(within_limit(item).map_err(|it| Error::invalid("insert", it))?)
        }
        (Kind::Set, None, None, Some(item)) => Change::Remove(item),
        (Kind::Counter, ..) => return Err(Error::invalid("add", "is needed, and nothing else")),
        (Kind::Set, ..) => return Err(Error::invalid("insert", "send insert or remove, alone")),
        _ => return Err(Error::invalid("kind", "must be counter or set; others take PUT")),
    };
    let (writer, of) = (node.coordinator.clone(), slot.clone());
    let written = async move { writer.write(&of, change, level).await };
    Ok(written_as(&node, &slot, &node.coordinator.to_the_end(written).await?))
}

/// Reads the value, or all siblings, or the items.
async fn read(
    State(node): State<Node>,
    Segment(key): Segment,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Value>> {
    let Query { slot, level } = Query::parse(key, &uri, Some("r"))?;
    let called = now();
    let record = node.coordinator.read(&slot, level).await?;
    let values = record.values();
    let first = values.iter().flatten().next().cloned();
    remember(&node, &slot, &headers, Action::Read(first), (called, Some(now())));
    let values = values.ok_or(Error::NotFound)?;
    let context = signed(&node, &slot, &record);
    Ok(Json(json!({ "key": slot.key, "kind": slot.kind, "values": values, "context": context })))
}
// ANCHOR_END: handlers

/// What a write answers.
fn written_as(node: &Node, slot: &Slot, (record, acknowledged): &(Record, usize)) -> Json<Value> {
    Json(json!({
        "key": slot.key,
        "kind": slot.kind,
        "acknowledged": acknowledged,
        "context": signed(node, slot, record),
    }))
}

/// What the client has read, according to the context that it sent.
fn past(signer: &Signer, slot: &Slot, context: Option<&str>) -> Result<Vector> {
    let wrong = |message: &str| Error::invalid("context", message);
    match (context, slot.kind) {
        (None, _) => Ok(Vector::default()),
        (Some(context), Kind::Siblings) => signer
            .verify(&slot.key, context)
            .ok_or_else(|| wrong("was not given out by this cluster for this key")),
        (Some(_), _) => Err(wrong("only a register with siblings takes it")),
    }
}

/// The context for the next write, if this kind of register has one.
fn signed(node: &Node, slot: &Slot, record: &Record) -> Option<String> {
    let has_one = slot.kind == Kind::Siblings;
    has_one.then(|| node.signer.sign(&slot.key, &record.context()))
}

/// Notes an operation under the client that `X-Client` names, or 0.
fn remember(
    node: &Node,
    slot: &Slot,
    headers: &HeaderMap,
    action: Action,
    (called, returned): (u64, Option<u64>),
) {
    let client = only(headers, "x-client").and_then(|text| text.parse().ok()).unwrap_or_default();
    let kind = Kind::ALL.iter().find(|(_, kind)| *kind == slot.kind).map_or("", |(name, _)| name);
    let key = format!("{kind}/{}", slot.key.as_str());
    node.history.add(Operation { client, key, action, called, returned });
}

/// What this node alone knows of a key, with the vectors.
async fn versions(
    State(node): State<Node>,
    Segment(key): Segment,
    uri: Uri,
) -> Result<Json<Value>> {
    let Query { slot, .. } = Query::parse(key, &uri, None)?;
    let replica = &node.coordinator.replica;
    let versions = match replica.get(&slot) {
        Record::Versions(versions) => json!(versions),
        Record::Newest(newest) => json!(newest.into_iter().collect::<Vec<_>>()),
        Record::Counter(counter) => json!([counter]),
        Record::Set(set) => json!([set]),
    };
    Ok(Json(
        json!({ "node": replica.node, "key": slot.key, "kind": slot.kind, "versions": versions }),
    ))
}

/// Who belongs to the cluster, and whom this node can reach.
async fn cluster(State(node): State<Node>) -> Json<Value> {
    let Coordinator { replica, peers, .. } = &node.coordinator;
    let reachable = peers.reachable().await;
    let others = peers.all().map(|(number, url)| {
        json!({ "node": number, "url": url.as_str(), "reachable": reachable.contains(&number) })
    });
    let all = node.coordinator.nodes();
    Json(json!({
        "node": replica.node,
        "keys": replica.registers(),
        "nodes": all,
        "quorum": Level::Quorum.of(all),
        "others": others.collect::<Vec<_>>(),
    }))
}

/// The operations that this node has coordinated. `?key=lww/tea` shows one register. Only the histories of all nodes
/// together say whether they are linearizable: a value may have been written through another node. They can be put together
/// if one clock gave their times, so on one machine.
async fn history(State(node): State<Node>, uri: Uri) -> Result<Json<Value>> {
    let operations = asked_for(&node, &uri)?;
    Ok(Json(json!({ "node": node.coordinator.replica.node, "operations": operations })))
}

/// The same as a drawing.
async fn drawing(State(node): State<Node>, uri: Uri) -> Result<Response> {
    let svg = draw(&asked_for(&node, &uri)?, Marks::default());
    Ok(([(CONTENT_TYPE, "image/svg+xml")], svg + "\n").into_response())
}

fn asked_for(node: &Node, uri: &Uri) -> Result<Vec<Operation>> {
    let mut key = None;
    for (name, value) in parse(uri.query().unwrap_or_default().as_bytes()) {
        if name != "key" || key.replace(value.into_owned()).is_some() {
            return Err(Error::invalid(&*name, "the only parameter is key, once"));
        }
    }
    Ok(node.history.of(key.as_deref()))
}

/// A node that runs can do something for its clients whatever happened to the others: it is ready.
async fn ready() -> Json<Value> {
    Json(json!({ "status": "ready" }))
}

/// What another node sends: it wants to know what we know, and may know more.
async fn replica(State(node): State<Node>, body: Bytes) -> Result<Json<Known>> {
    let wrong = |error: serde_json::Error| Error::invalid("record", error.to_string());
    let Exchange { slot, record } = serde_json::from_slice(&body).map_err(wrong)?;
    let record = match record {
        Some(record) => node.coordinator.merge_here(&slot, record).await?,
        None => node.coordinator.replica.get(&slot),
    };
    Ok(Json(Known { node: node.coordinator.replica.node, record }))
}
