//! What does the service say, and to whom? The table of calls as handlers, and a document that is made of the same.

use std::time::{Duration, SystemTime};

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, LINK, LOCATION};
use axum::http::{HeaderMap, Method, StatusCode, Uri, request::Parts};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::{Router, body::Bytes, routing::get};
use edge::{Json, frame::framed, json::JsonRejection};
use headers::{HeaderMapExt, LastModified};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::condition::{has_it, may_write, tag, weak_tag};
use crate::error::{ACCEPT_PATCH, Error, PATCHES, ProblemBody, Result};
use crate::idempotency::claim;
use crate::links::{self, Items, Linked};
use crate::negotiate::{V1, Version, acceptable, negotiate, of_the_old_version};
use crate::order::{CANCEL, Order, OrderInput, SHIP};
use crate::page::PageQuery;
use crate::patch::apply;
use crate::store::Store;
use crate::user::{Customer, User, UserInput};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Many times the largest user.
const MAX_BODY: usize = 64 * 1_024;

/// Where the handlers find everything, what a patch is read from, and how most of them answer.
type Db = State<Store>;
type Sent = std::result::Result<Bytes, BytesRejection>;
type Reply = Result<Response>;

#[derive(OpenApi)]
#[openapi(info(title = "Users and orders", version = "2"), components(responses(ProblemBody)))]
struct Document;

/// All of the service, with other calls beside ours. It remembers nothing about a client, so any process can answer the next
/// request.
pub fn router(store: Store, others: OpenApiRouter<Store>) -> Router {
    let old = OpenApiRouter::new().routes(routes!(customers)).routes(routes!(customer));
    let (calls, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(entry))
        .routes(routes!(create, list))
        .routes(routes!(show, put, patch, delete))
        .routes(routes!(order, orders))
        .routes(routes!(show_order))
        .routes(routes!(cancel))
        .routes(routes!(ship))
        .merge(old.layer(from_fn(of_the_old_version)))
        .merge(others)
        .layer(from_fn(acceptable))
        .split_for_parts();
    let calls = calls
        .route("/openapi.json", get(async || Json(document)))
        .route("/docs", get(Html(include_str!("docs.html"))))
        .route("/readyz", get(ready));
    let calls = framed(calls, TIMEOUT, MAX_BODY).with_state(store);
    // Around it, since axum writes `Allow` last.
    Router::new().fallback_service(calls).layer(from_fn(options))
}

/// Where a client begins that knows one URL.
#[utoipa::path(get, path = "/", responses((status = 200, body = Object), Error))]
async fn entry() -> Json<Linked<Value>> {
    let paths = [("self", "/"), ("users", "/users"), ("graphql", "/graphql"), ("docs", "/docs")];
    Json(Linked::new(json!({}), paths.map(|(relation, path)| (relation, path.to_owned()))))
}

async fn ready(store: Db) -> Result<Json<Value>> {
    store.ping().await?;
    Ok(Json(json!({ "status": "ready" })))
}

/// `OPTIONS` says what a path takes: just what a 405 for it would say.
async fn options(request: Request, next: Next) -> Response {
    let asked = request.method() == Method::OPTIONS;
    let response = next.run(request).await;
    let allow = response.headers().get(ALLOW).and_then(|it| it.to_str().ok()).filter(|_| asked);
    let Some(allow) = allow.map(|allow| format!("{allow},OPTIONS")) else { return response };
    let patches = allow.contains("PATCH").then_some([(ACCEPT_PATCH, PATCHES)]);
    (StatusCode::NO_CONTENT, patches, [(ALLOW, allow)]).into_response()
}

/// An id in the path, written as we write it. A string that cannot be one is not found.
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(names("id"), parameter_in = Path)]
struct Id(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let text = path.map_err(|_| Error::NOT_FOUND)?.0;
        // One user has one URL: not a second one in capitals or in braces.
        let id = Uuid::try_parse(&text).ok().filter(|id| id.to_string() == text);
        id.map(Self).ok_or(Error::NOT_FOUND)
    }
}

/// Creates a user under an id of ours.
#[utoipa::path(post, path = "/users", params(("Idempotency-Key" = Option<String>, Header, max_length = 255)),
    responses((status = 201, description = "created", content((Linked<User>), (Customer = V1.0))), Error))]
async fn create(store: Db, headers: HeaderMap, Json(body): Json<UserInput>) -> Reply {
    let claim = claim(&headers, &body)?;
    let user = store.create(&body.parse()?, claim).await?;
    written(&headers, user, true)
}

// ANCHOR: show
/// One user. 304 if the client has it already.
#[utoipa::path(get, path = "/users/{id}", params(Id, ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, description = "the user", content((Linked<User>), (Customer = V1.0))), (status = 304), Error))]
async fn show(store: Db, Id(id): Id, headers: HeaderMap) -> Reply {
    let (user, version) = (store.find(id).await?, negotiate(&headers)?);
    let (fields, tag) = (last_modified(&user), tag(&user, version));
    let body = || named(version, user.in_version(version));
    Ok((fields, unless_known(&headers, tag, body)).into_response())
}
// ANCHOR_END: show

/// Replaces the whole user, or creates one under the client's id.
#[utoipa::path(put, path = "/users/{id}",
    params(Id, ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, description = "the user", content((Linked<User>), (Customer = V1.0))),
        (status = 201, description = "created", content((Linked<User>), (Customer = V1.0))), Error))]
async fn put(store: Db, Id(id): Id, headers: HeaderMap, Json(body): Json<UserInput>) -> Reply {
    let new = body.parse()?;
    let decide = |user: Option<&User>| may_write(&headers, user).map(|()| new);
    let (user, is_new) = store.replace(id, decide).await?;
    written(&headers, user, is_new)
}

// ANCHOR: patch_user
/// Changes a part of the user. The patch is applied to the locked user, so it meets the version that it was checked with.
#[utoipa::path(patch, path = "/users/{id}", params(Id, ("If-Match" = Option<String>, Header)),
    request_body(content((Object = "application/merge-patch+json"), (Vec<Object> = "application/json-patch+json"))),
    responses((status = 200, description = "the user", content((Linked<User>), (Customer = V1.0))), Error))]
async fn patch(store: Db, Id(id): Id, headers: HeaderMap, body: Sent) -> Reply {
    let body = body.map_err(JsonRejection::from)?;
    let decide = |user: Option<&User>| {
        let user = user.ok_or(Error::NOT_FOUND)?;
        may_write(&headers, Some(user))?;
        apply(&headers, &body, user)
    };
    let (user, is_new) = store.replace(id, decide).await?;
    written(&headers, user, is_new)
}
// ANCHOR_END: patch_user

// ANCHOR: delete
/// Deletes the user. 204 also if there is none (any more): the client wanted it gone, and may not have heard the answer.
#[utoipa::path(delete, path = "/users/{id}", params(Id, ("If-Match" = Option<String>, Header)),
    responses((status = 204, description = "it is gone"), Error))]
async fn delete(store: Db, Id(id): Id, headers: HeaderMap) -> Result<StatusCode> {
    let conditional = headers.contains_key("if-match");
    let may = |user: &User| if conditional { may_write(&headers, Some(user)) } else { Ok(()) };
    store.delete(id, may).await?;
    Ok(StatusCode::NO_CONTENT)
}
// ANCHOR_END: delete

/// A page of users.
#[utoipa::path(get, path = "/users",
    params(("limit" = Option<u8>, Query, minimum = 1, maximum = 200), ("sort" = Option<String>, Query),
        ("email" = Option<String>, Query), ("include" = Option<String>, Query), ("cursor" = Option<String>, Query),
        ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, content((Linked<Items<Linked<User>>>), (Linked<Items<Customer>> = V1.0))),
        (status = 304, description = "as before"), Error))]
async fn list(store: Db, uri: Uri, headers: HeaderMap) -> Reply {
    let version = negotiate(&headers)?;
    let page = PageQuery::parse(uri.query().unwrap_or_default())?;
    let mut users = store.page(&page).await?;
    let next = page.next(&mut users).map(|query| format!("{}?{query}", uri.path()));
    let tag = weak_tag(&users, &(&uri, version, &next));
    let link = next.as_ref().map(|next| [(LINK, format!("<{next}>; rel=\"next\""))]);
    let body = || {
        let items = users.into_iter().map(|user| user.in_version(version)).collect();
        named(version, Linked::new(Items { items }, next.map(|next| ("next", next))))
    };
    Ok((link, unless_known(&headers, tag, body)).into_response())
}

/// The users as they were in version 1.
#[utoipa::path(get, path = "/v1/customers",
    responses((status = 200, description = "a page", content((Linked<Items<Customer>> = V1.0))), (status = 304), Error))]
async fn customers(store: Db, uri: Uri, headers: HeaderMap) -> Reply {
    list(store, uri, headers).await
}

/// A user as in version 1.
#[utoipa::path(get, path = "/v1/customers/{id}", params(Id),
    responses((status = 200, description = "the user", content((Customer = V1.0))), (status = 304), Error))]
async fn customer(store: Db, id: Id, headers: HeaderMap) -> Reply {
    show(store, id, headers).await
}

/// The user as it is after a write, with what a client needs for a condition the next time.
fn written(headers: &HeaderMap, user: User, is_new: bool) -> Reply {
    let version = negotiate(headers)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = is_new.then(|| [(LOCATION, links::user(user.id))]);
    let (tag, fields) = ([(ETAG, tag(&user, version))], last_modified(&user));
    let body = named(version, user.in_version(version));
    Ok((status, location, tag, fields, body).into_response())
}

fn last_modified(user: &User) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.typed_insert(LastModified::from(SystemTime::from(user.updated_at)));
    fields
}

/// The body, under the name of its version.
fn named(version: Version, body: impl Serialize) -> Response {
    ([(CONTENT_TYPE, version.0)], Json(body)).into_response()
}

/// The body; or only its tag, if the client knows that.
fn unless_known(headers: &HeaderMap, tag: String, body: impl FnOnce() -> Response) -> Response {
    let known = has_it(headers, &tag);
    let answer = if known { StatusCode::NOT_MODIFIED.into_response() } else { body() };
    ([(ETAG, tag)], answer).into_response()
}

/// The newest hundred orders of a user.
#[utoipa::path(get, path = "/users/{id}/orders", params(Id),
    responses((status = 200, description = "the newest first", body = Linked<Items<Linked<Order>>>), Error))]
async fn orders(store: Db, Id(id): Id) -> Result<Json<Linked<Items<Linked<Order>>>>> {
    // Nobody's orders are no empty list.
    store.find(id).await?;
    let items = store.orders_of(&[id]).await?.remove(&id).unwrap_or_default();
    let user = links::user(id);
    Ok(Json(Linked::new(Items { items }, [("self", format!("{user}/orders")), ("user", user)])))
}

/// A new order of a user.
#[utoipa::path(post, path = "/users/{id}/orders", params(Id), responses((status = 201, body = Linked<Order>), Error))]
async fn order(store: Db, Id(id): Id, Json(body): Json<OrderInput>) -> Reply {
    let (item, quantity) = body.parse()?;
    let order = store.order(id, &item, quantity).await?;
    let location = [(LOCATION, links::order(order.id))];
    Ok((StatusCode::CREATED, location, Json(order.linked())).into_response())
}

/// One order, with links to what may be done with it now.
#[utoipa::path(get, path = "/orders/{id}", params(Id), responses((status = 200, body = Linked<Order>), Error))]
async fn show_order(store: Db, Id(id): Id) -> Result<Json<Linked<Order>>> {
    Ok(Json(store.find_order(id).await?.linked()))
}

/// Cancels the order. Again: the same.
#[utoipa::path(post, path = "/orders/{id}/cancellation", params(Id),
    responses((status = 200, description = "it is cancelled", body = Linked<Order>), Error))]
async fn cancel(store: Db, Id(id): Id) -> Result<Json<Linked<Order>>> {
    Ok(Json(store.move_order(id, CANCEL).await?.linked()))
}

/// Ships the order. Again: the same.
#[utoipa::path(post, path = "/orders/{id}/shipment", params(Id),
    responses((status = 200, description = "it is shipped", body = Linked<Order>), Error))]
async fn ship(store: Db, Id(id): Id) -> Result<Json<Linked<Order>>> {
    Ok(Json(store.move_order(id, SHIP).await?.linked()))
}
