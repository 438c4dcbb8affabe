//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header::LOCATION, request::Parts},
    response::IntoResponse,
    routing::{get, post},
};
use edge::{Json, frame::framed};
use serde_json::{Value, json};

use crate::{
    bank::Bank,
    body::{AccountBody, CreateTransfer, EntriesBody, OpenAccount, Page, TransferBody},
    error::Error,
    idempotency::IdempotencyKey,
};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An owner's name is the longest thing in a body, and JSON may write a character as twelve bytes.
const MAX_BODY: usize = 16 * 1_024;

/// All of the service.
pub fn router(bank: Arc<Bank>) -> Router {
    let calls = Router::new()
        .route("/accounts", post(open))
        .route("/accounts/{id}", get(account))
        .route("/accounts/{id}/entries", get(entries))
        .route("/transfers", post(transfer))
        .route("/transfers/{id}", get(show_transfer))
        .route("/readyz", get(ready));
    framed(calls, TIMEOUT, MAX_BODY).with_state(bank)
}

async fn open(
    State(bank): State<Arc<Bank>>,
    key: IdempotencyKey,
    Json(body): Json<OpenAccount>,
) -> Result<impl IntoResponse, Error> {
    let (owner, amount) = body.parse()?;
    let account = bank.open(&owner, amount, &key).await?;
    let location = format!("/accounts/{}", account.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(AccountBody::from(account))))
}

async fn account(State(bank): State<Arc<Bank>>, id: Id) -> Result<Json<AccountBody>, Error> {
    Ok(Json(bank.account(id.0).await?.into()))
}

async fn entries(
    State(bank): State<Arc<Bank>>,
    id: Id,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<EntriesBody>, Error> {
    let (after, limit) = page?.0.parse()?;
    let entries = bank.entries(id.0, after, limit.into()).await?;
    Ok(Json(EntriesBody::new(id.0, limit, entries)))
}

// ANCHOR: transfer
async fn transfer(
    State(bank): State<Arc<Bank>>,
    key: IdempotencyKey,
    Json(body): Json<CreateTransfer>,
) -> Result<impl IntoResponse, Error> {
    let order = body.parse()?;
    // The first time and each time again: nothing tells the answers apart.
    let transfer = bank.transfer(&order, &key).await?;
    let location = format!("/transfers/{}", transfer.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(TransferBody::from(transfer))))
}
// ANCHOR_END: transfer

async fn show_transfer(State(bank): State<Arc<Bank>>, id: Id) -> Result<Json<TransferBody>, Error> {
    Ok(Json(bank.find(id.0).await?.into()))
}

async fn ready(State(bank): State<Arc<Bank>>) -> Result<Json<Value>, Error> {
    bank.ping().await?;
    Ok(Json(json!({ "status": "ready" })))
}

/// A number in the path, written as we write it. What can be none is simply not found; the vault's, 0, is
/// nobody's business.
struct Id(i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let text = path.map_err(|_| Error::NotFound)?.0;
        match text.parse() {
            Ok(id) if id > 0 && text.starts_with(|c| ('1'..='9').contains(&c)) => Ok(Self(id)),
            _ => Err(Error::NotFound),
        }
    }
}
