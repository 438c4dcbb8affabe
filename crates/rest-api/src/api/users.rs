//! How are users read and written over HTTP?

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{OriginalUri, State};
use axum::http::header::{CONTENT_TYPE, LINK, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use edge::Json;
use edge::json::JsonRejection;
use headers::{HeaderMapExt, LastModified};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{App, Condition, Id, Refused, RefusedBody};
use crate::condition::{has_it, may_write, tag, weak_tag};
use crate::error::Error;
use crate::idempotency::{IdempotencyKey, fingerprint};
use crate::links::{Link, Links};
use crate::negotiate::Version;
use crate::order::OrderBody;
use crate::page::PageQuery;
use crate::patch;
use crate::user::{Customer, User, UserBody, UserInput};

/// Creates a user under an id of ours.
#[utoipa::path(post, path = "/users", request_body = UserInput,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255)),
    responses((status = 201, description = "created", body = UserBody), RefusedBody, Refused))]
pub async fn create(
    State(app): State<Arc<App>>,
    version: Version,
    key: IdempotencyKey,
    Json(body): Json<UserInput>,
) -> Result<Response, Error> {
    let claim = key.0.map(|key| (key, fingerprint(&body)));
    let user = app.store.create(&body.parse()?, claim).await?;
    Ok(created(user, version, &app))
}

// ANCHOR: show
/// One user. 304 if the client has it already.
#[utoipa::path(get, path = "/users/{id}", params(Id, ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, description = "the user", body = UserBody),
        (status = 304, description = "as before"), Refused))]
pub async fn show(
    State(app): State<Arc<App>>,
    version: Version,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let user = app.store.find(id.id).await?;
    if tag(&user, version).is_some_and(|tag| has_it(&headers, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, validators(&user, version)).into_response());
    }
    Ok(shown(StatusCode::OK, user, version, &app))
}
// ANCHOR_END: show

/// Replaces the whole user, or creates one under the client's id.
#[utoipa::path(put, path = "/users/{id}", request_body = UserInput,
    params(Id, ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, description = "the user", body = UserBody),
        (status = 201, description = "created", body = UserBody), RefusedBody, Condition, Refused))]
pub async fn put(
    State(app): State<Arc<App>>,
    version: Version,
    id: Id,
    headers: HeaderMap,
    Json(body): Json<UserInput>,
) -> Result<Response, Error> {
    let new = body.parse()?;
    let decide = |user: Option<&User>| may_write(&headers, user).map(|()| new);
    match app.store.replace(id.id, decide).await? {
        (user, true) => Ok(created(user, version, &app)),
        (user, false) => Ok(shown(StatusCode::OK, user, version, &app)),
    }
}

// ANCHOR: patch_user
/// Changes a part of the user. The patch is applied to the locked user, so it meets the version that it was checked with.
#[utoipa::path(patch, path = "/users/{id}", params(Id, ("If-Match" = Option<String>, Header)),
    request_body(content((Object = "application/merge-patch+json"))),
    responses((status = 200, description = "the user", body = UserBody), RefusedBody, Condition,
        Refused))]
pub async fn patch_user(
    State(app): State<Arc<App>>,
    version: Version,
    id: Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let body = body.map_err(JsonRejection::from)?;
    let media_type = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let decide = |user: Option<&User>| {
        let user = user.ok_or(Error::NotFound)?;
        may_write(&headers, Some(user))?;
        patch::apply(media_type, &body, user)
    };
    let (user, _) = app.store.replace(id.id, decide).await?;
    Ok(shown(StatusCode::OK, user, version, &app))
}
// ANCHOR_END: patch_user

// ANCHOR: delete
/// Deletes the user. 204 also if there is none (any more): the client wanted it gone, and may not have heard the answer.
#[utoipa::path(delete, path = "/users/{id}", params(Id, ("If-Match" = Option<String>, Header)),
    responses((status = 204, description = "it is gone"), Condition, Refused))]
pub async fn delete(
    State(app): State<Arc<App>>,
    id: Id,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let conditional = headers.contains_key("if-match");
    let may = |user: &User| if conditional { may_write(&headers, Some(user)) } else { Ok(()) };
    app.store.delete(id.id, may).await?;
    Ok(StatusCode::NO_CONTENT)
}
// ANCHOR_END: delete

/// A page of users.
#[utoipa::path(get, path = "/users",
    params(("limit" = Option<i64>, Query, minimum = 1, maximum = 200), ("sort" = Option<String>, Query),
        ("email" = Option<String>, Query), ("include" = Option<String>, Query),
        ("cursor" = Option<String>, Query), ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, description = "a page", body = PageBody),
        (status = 304, description = "as before"), Refused))]
pub async fn list(
    State(app): State<Arc<App>>,
    version: Version,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let page = PageQuery::parse(uri.query().unwrap_or_default())?;
    let mut users = app.store.page(&page).await?;
    let next = page.next(&mut users).map(|query| format!("{}?{query}", uri.path()));
    let ids: Vec<_> = users.iter().filter(|_| page.with_orders).map(|user| user.id).collect();
    let orders = if ids.is_empty() { Vec::new() } else { app.store.orders_of(&ids).await? };
    let versions = users.iter().map(|user| (user.id, user.version));
    let versions = versions.chain(orders.iter().map(|order| (order.id, order.version)));
    let about = format!("{uri} {version:?} {next:?}");
    let parts = versions.map(|version| format!("{version:?}")).chain([about]);
    let mut fields = HeaderMap::new();
    if let Some(tag) = weak_tag(parts) {
        let known = has_it(&headers, &tag);
        fields.typed_insert(tag);
        if known {
            return Ok((StatusCode::NOT_MODIFIED, fields).into_response());
        }
    }
    if let Some(next) =
        next.as_ref().and_then(|next| format!("<{next}>; rel=\"next\"").parse().ok())
    {
        fields.insert(LINK, next);
    }
    if version == Version::V1 {
        let items: Vec<_> = users.into_iter().map(Customer::from).collect();
        return Ok((fields, Json(json!({ "items": items }))).into_response());
    }
    let mut of_user = HashMap::<_, Vec<_>>::new();
    for order in orders {
        of_user.entry(order.user_id).or_default().push(OrderBody::new(order, &app.urls));
    }
    let mut body = |user: User| {
        let orders = page.with_orders.then(|| of_user.remove(&user.id).unwrap_or_default());
        UserBody::new(user, orders, &app.urls)
    };
    let items = users.into_iter().map(&mut body).collect();
    let links = next.map(|href| ("next", Link { href })).into_iter().collect();
    Ok((fields, Json(PageBody { items, _links: links })).into_response())
}

/// A page of users, as clients see it.
#[derive(Serialize, ToSchema)]
pub struct PageBody {
    items: Vec<UserBody>,
    _links: Links,
}

fn created(user: User, version: Version, app: &App) -> Response {
    let location = app.urls.to(&format!("/users/{}", user.id)).href;
    ([(LOCATION, location)], shown(StatusCode::CREATED, user, version, app)).into_response()
}

/// The user in this version, with what a client needs to ask under a condition the next time.
fn shown(status: StatusCode, user: User, version: Version, app: &App) -> Response {
    let validators = validators(&user, version);
    match version {
        Version::V1 => (status, validators, Json(Customer::from(user))).into_response(),
        Version::V2 => {
            (status, validators, Json(UserBody::new(user, None, &app.urls))).into_response()
        }
    }
}

fn validators(user: &User, version: Version) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.typed_insert(LastModified::from(SystemTime::from(user.updated_at)));
    if let Some(tag) = tag(user, version) {
        headers.typed_insert(tag);
    }
    headers
}
