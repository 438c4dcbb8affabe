//! What does the service say, and to whom? The table of calls, as handlers.

use std::{net::SocketAddr, sync::Arc};

use axum::extract::rejection::BytesRejection;
use axum::extract::{
    ConnectInfo, DefaultBodyLimit, Extension, FromRef, FromRequestParts, Path, State,
};
use axum::handler::Handler;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LINK, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::{Router, body::Bytes, routing::get};
use edge::{
    Json, client_address::TrustedProxies, email::Email, json::JsonRejection, password::Passwords,
    secret::Secret,
};
use jsonwebtoken::get_current_timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::form_urlencoded;
use uuid::Uuid;

use crate::attachment::{Attachment, MAX_FILE};
use crate::error::{Error, Result};
use crate::frame::{RequestId, secured};
use crate::invoice::{Change, Invoice, InvoiceInput};
use crate::login::Limits;
use crate::may::{Administer, May, ReadInvoices, Route, Routes, WriteInvoices};
use crate::page::PageQuery;
use crate::render::{CSV_HEAD, csv_line, pdf};
use crate::store::Store;
use crate::token::{LIFE, Tokens};
use crate::webhook::Webhooks;

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    /// What is kept.
    pub store: Store,
    /// Who asks.
    pub tokens: Arc<Tokens>,
    /// Who logs in.
    pub passwords: Arc<Passwords>,
    /// How often.
    pub limits: Limits,
    /// The proxies that say for whom they ask.
    pub proxies: Arc<TrustedProxies>,
    /// Who is told.
    pub webhooks: Webhooks,
    /// How many documents are made at once.
    pub documents: Arc<Semaphore>,
}

impl FromRef<Api> for Arc<Tokens> {
    fn from_ref(api: &Api) -> Self {
        Arc::clone(&api.tokens)
    }
}

type Reply = Result<Response>;

// ANCHOR: calls
/// Every call, with what it needs.
pub fn routes() -> Routes<Api> {
    let attach = attach.layer(DefaultBodyLimit::max(MAX_FILE));
    Routes::new()
        .open("POST", "/login", login)
        .open("GET", "/readyz", ready)
        .guarded("GET", "/invoices", list)
        .guarded("POST", "/invoices", create)
        .guarded("GET", "/invoices/{id}", show)
        .guarded("PATCH", "/invoices/{id}", change)
        .guarded("DELETE", "/invoices/{id}", delete)
        .guarded("POST", "/invoices/{id}/pdf", document)
        .guarded("POST", "/invoices/{id}/attachments", attach)
        .guarded("GET", "/attachments/{id}", attachment)
        .guarded("GET", "/exports", export)
        .guarded("POST", "/webhooks", add_webhook)
        .guarded("POST", "/webhooks/{id}/test", test_webhook)
        .guarded("GET", "/admin/customers", customers)
        .guarded("GET", "/audit", audit)
}
// ANCHOR_END: calls

/// All of the service, to be served with the client's address as `ConnectInfo<SocketAddr>` in each request.
pub fn router(api: Api, origins: Vec<HeaderValue>) -> Router {
    let Routes { router, mut table } = routes();
    let others = ["/healthz", "/openapi.json"];
    table.extend(others.map(|path| Route { method: "GET", path, roles: None }));
    let document = describe(&table);
    let router = router.route("/openapi.json", get(async || Json(document)));
    secured(router, origins).with_state(api)
}

/// The document of the calls of this table.
fn describe(table: &[Route]) -> Value {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Invoices", "version": "1" },
        "components": { "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } } },
    });
    let id = json!({ "name": "id", "in": "path", "required": true, "schema": {} });
    for Route { method, path, roles } in table {
        let parameters: Value = path.matches("{id}").map(|_| id.clone()).collect();
        let roles: Value = roles.iter().map(|roles| json!({ "token": roles })).collect();
        let responses = json!({ "default": { "description": "" } });
        document["paths"][path][method.to_lowercase()] =
            json!({ "parameters": parameters, "security": roles, "responses": responses });
    }
    document
}

async fn ready(api: State<Api>) -> Result<Json<Value>> {
    api.store.ping().await?;
    Ok(Json(json!({ "status": "ready" })))
}

/// An id in the path, written as we write it. A string that cannot be one is not found.
struct Id(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let text = path.map_err(|_| Error::NOT_FOUND)?.0;
        let id = Uuid::try_parse(&text).ok().filter(|id| id.to_string() == text);
        id.map(Self).ok_or(Error::NOT_FOUND)
    }
}

/// It has no `Debug`, so that no log can show it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `email` and `password`")]
struct Credentials {
    email: String,
    password: String,
}

// ANCHOR: login
async fn login(
    api: State<Api>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(RequestId(request)): Extension<RequestId>,
    headers: HeaderMap,
    Json(body): Json<Credentials>,
) -> Result<Json<Value>> {
    let email = Email::parse(&body.email).map_err(|wrong| Error::invalid("email", wrong))?;
    let counts = api.limits.counts(&email, api.proxies.client_of(peer.ip(), &headers));
    api.store.attempt(&counts).await?;
    let account = api.store.account(email.key()).await?;
    let hash = account.as_ref().map(|(_, hash)| hash.as_str());
    let matches = api.passwords.verify(Secret::new(body.password), hash).await?;
    let user = account.as_ref().map_or(Uuid::nil(), |(who, _)| who.user);
    let Some((who, _)) = account.filter(|_| matches) else {
        // Not the address that was typed: some type their password there.
        api.store.audit_login(user, "login refused", request).await?;
        return Err(Error::LOGIN_FAILED);
    };
    api.store.forget(&counts).await?;
    api.store.audit_login(user, "logged in", request).await?;
    let token = api.tokens.sign(who, get_current_timestamp())?;
    Ok(Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": LIFE })))
}
// ANCHOR_END: login

async fn list(may: May<ReadInvoices>, api: State<Api>, uri: Uri) -> Result<Json<Value>> {
    let page = PageQuery::parse(uri.query().unwrap_or_default(), 100)?;
    let (items, next) = api.store.list(may.by.who, &page).await?;
    Ok(Json(json!({ "items": items, "next": next })))
}

async fn create(may: May<WriteInvoices>, api: State<Api>, Json(body): Json<InvoiceInput>) -> Reply {
    let invoice = api.store.create(may.by, &body).await?;
    let location = [(LOCATION, format!("/invoices/{}", invoice.id))];
    Ok((StatusCode::CREATED, location, Json(invoice)).into_response())
}

// ANCHOR: handlers
async fn show(may: May<ReadInvoices>, api: State<Api>, Id(id): Id) -> Result<Json<Invoice>> {
    Ok(Json(api.store.find(may.by.who, id).await?))
}

async fn change(
    may: May<WriteInvoices>,
    api: State<Api>,
    Id(id): Id,
    Json(body): Json<Change>,
) -> Result<Json<Invoice>> {
    Ok(Json(api.store.change(may.by, id, &body).await?))
}
// ANCHOR_END: handlers

async fn delete(may: May<WriteInvoices>, api: State<Api>, Id(id): Id) -> Result<StatusCode> {
    api.store.delete(may.by, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// While so many are made, the next one is refused at once: in a queue, the clients of a flood would hold memory. A client
/// that does not read its answer holds memory too, and no turn.
fn turn(api: &Api) -> Result<tokio::sync::SemaphorePermit<'_>> {
    api.documents.try_acquire().map_err(|_| Error::busy("too many documents at once"))
}

async fn document(may: May<ReadInvoices>, api: State<Api>, Id(id): Id) -> Reply {
    let _turn = turn(&api)?;
    let invoice = api.store.find(may.by.who, id).await?;
    Ok(file("application/pdf", "invoice.pdf", pdf(&invoice)))
}

async fn export(may: May<ReadInvoices>, api: State<Api>, uri: Uri) -> Reply {
    let _turn = turn(&api)?;
    let page = PageQuery::parse(uri.query().unwrap_or_default(), 1_000)?;
    let (invoices, next) = api.store.list(may.by.who, &page).await?;
    let lines = invoices.iter().map(csv_line).collect::<String>();
    let next = next.map(|id| [(LINK, format!("</exports?{}>; rel=\"next\"", after(&uri, id)))]);
    Ok((next, file("text/csv; charset=utf-8", "invoices.csv", format!("{CSV_HEAD}{lines}")))
        .into_response())
}

/// The same query, for what comes after this invoice.
fn after(uri: &Uri, id: Uuid) -> String {
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query = query.filter(|(name, _)| name != "after");
    let mut next = form_urlencoded::Serializer::new(String::new());
    next.extend_pairs(query).append_pair("after", &id.to_string()).finish()
}

async fn attach(
    may: May<WriteInvoices>,
    api: State<Api>,
    (Id(id), uri): (Id, Uri),
    body: std::result::Result<Bytes, BytesRejection>,
) -> Reply {
    let body = body.map_err(JsonRejection::from)?;
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let name = query.find(|(name, _)| name == "name").map(|(_, name)| name);
    let file = Attachment::parse(&name.unwrap_or_default(), &body)?;
    let id = api.store.attach(may.by, id, &file).await?;
    let location = [(LOCATION, format!("/attachments/{id}"))];
    let body = json!({ "id": id, "name": file.name, "media_type": file.media_type });
    Ok((StatusCode::CREATED, location, Json(body)).into_response())
}

async fn attachment(may: May<ReadInvoices>, api: State<Api>, Id(id): Id) -> Reply {
    let (name, media_type, content) = api.store.attachment(may.by.who, id).await?;
    Ok(file(&media_type, &name, content))
}

/// A file to be saved, and never shown in a page of ours.
fn file(media_type: &str, name: &str, content: impl IntoResponse) -> Response {
    let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let disposition = format!("attachment; filename*=UTF-8''{name}");
    ([(CONTENT_TYPE, media_type), (CONTENT_DISPOSITION, disposition.as_str())], content)
        .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `url`")]
struct Hook {
    url: String,
}

async fn add_webhook(may: May<WriteInvoices>, api: State<Api>, Json(body): Json<Hook>) -> Reply {
    let url = api.webhooks.parse(&body.url).map_err(|wrong| Error::invalid("url", wrong))?;
    let id = api.store.add_webhook(may.by, url.as_str()).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "url": url.as_str() }))).into_response())
}

async fn test_webhook(may: May<WriteInvoices>, api: State<Api>, Id(id): Id) -> Result<Json<Value>> {
    let (url,) = api.store.webhook(may.by.who, id).await?;
    let status = api.webhooks.deliver(&url, json!({ "event": "test" }).to_string()).await;
    let delivered = status.is_some_and(|it| (200..300).contains(&it));
    Ok(Json(json!({ "delivered": delivered, "status": status })))
}

async fn customers(may: May<Administer>, api: State<Api>) -> Result<Json<Value>> {
    let customers = api.store.customers(may.by).await?.into_iter();
    let items: Value = customers.map(|(id, name)| json!({ "id": id, "name": name })).collect();
    Ok(Json(json!({ "items": items })))
}

async fn audit(_: May<Administer>, api: State<Api>, uri: Uri) -> Result<Json<Value>> {
    let after = uri.query().map_or(Some("0"), |query| query.strip_prefix("after="));
    let after = after.and_then(|after| after.parse::<u32>().ok());
    let after = after.ok_or_else(|| Error::invalid("after", "is no number"))?;
    let items = api.store.audit_page(after.into()).await?;
    let broken_at = items.iter().find(|entry| !entry.intact).map(|entry| entry.seq);
    Ok(Json(json!({ "items": items, "broken_at": broken_at })))
}
