//! The bank as one writes it in the interview: two updates between `begin` and `commit`.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection, PgPool};
use time::OffsetDateTime;

/// Where the money of an opening comes from.
const VAULT: i64 = 0;

#[derive(Serialize, FromRow)]
struct Account {
    id: i64,
    owner: String,
    balance_cents: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

#[derive(Serialize, FromRow)]
struct Transfer {
    id: i64,
    #[serde(rename = "from")]
    from_account: i64,
    #[serde(rename = "to")]
    to_account: i64,
    amount_cents: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// All of the service, on the tables `accounts`, `transfers` and `entries`.
pub async fn router(database_url: &str) -> anyhow::Result<Router> {
    Ok(Router::new()
        .route("/accounts", post(open))
        .route("/accounts/{id}", get(account))
        .route("/accounts/{id}/entries", get(entries))
        .route("/transfers", post(transfer))
        .route("/transfers/{id}", get(show_transfer))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(PgPool::connect(database_url).await?))
}

#[derive(Deserialize)]
struct CreateTransfer {
    from: i64,
    to: i64,
    amount_cents: i64,
}

async fn transfer(
    State(pool): State<PgPool>,
    Json(CreateTransfer { from, to, amount_cents }): Json<CreateTransfer>,
) -> Result<Response, Failed> {
    let mut transaction = pool.begin().await?;
    if find_account(&mut transaction, from).await?.balance_cents < amount_cents {
        return Ok((StatusCode::CONFLICT, "not enough money").into_response());
    }
    let transfer = pay(&mut transaction, from, to, amount_cents).await?;
    transaction.commit().await?;
    Ok(created(format!("/transfers/{}", transfer.id), transfer))
}

/// The textbook's two updates, and what has to be written down.
async fn pay(db: &mut PgConnection, from: i64, to: i64, cents: i64) -> sqlx::Result<Transfer> {
    let debit = "update accounts set balance_cents = balance_cents - $2 where id = $1";
    sqlx::query(debit).bind(from).bind(cents).execute(&mut *db).await?;
    let credit = "update accounts set balance_cents = balance_cents + $2 where id = $1";
    sqlx::query(credit).bind(to).bind(cents).execute(&mut *db).await?;
    let insert = "insert into transfers (from_account, to_account, amount_cents) \
                  values ($1, $2, $3) returning *";
    let insert = sqlx::query_as(insert).bind(from).bind(to).bind(cents);
    let transfer: Transfer = insert.fetch_one(&mut *db).await?;
    let entries = "insert into entries (transfer_id, account_id, amount_cents) \
                   values ($1, $2, -$4::bigint), ($1, $3, $4)";
    sqlx::query(entries).bind(transfer.id).bind(from).bind(to).bind(cents).execute(db).await?;
    Ok(transfer)
}

#[derive(Deserialize)]
struct OpenAccount {
    owner: String,
    balance_cents: i64,
}

async fn open(
    State(pool): State<PgPool>,
    Json(OpenAccount { owner, balance_cents }): Json<OpenAccount>,
) -> Result<Response, Failed> {
    let mut transaction = pool.begin().await?;
    let insert = "insert into accounts (owner, balance_cents) values ($1, 0) returning id";
    let id = sqlx::query_scalar(insert).bind(owner).fetch_one(&mut *transaction).await?;
    if balance_cents > 0 {
        pay(&mut transaction, VAULT, id, balance_cents).await?;
    }
    let account = find_account(&mut transaction, id).await?;
    transaction.commit().await?;
    Ok(created(format!("/accounts/{id}"), account))
}

async fn account(State(pool): State<PgPool>, Path(id): Path<i64>) -> Result<Json<Account>, Failed> {
    Ok(Json(find_account(&mut *pool.acquire().await?, id).await?))
}

async fn find_account(db: &mut PgConnection, id: i64) -> sqlx::Result<Account> {
    sqlx::query_as("select * from accounts where id = $1").bind(id).fetch_one(db).await
}

async fn entries(State(pool): State<PgPool>, Path(id): Path<i64>) -> Result<Json<Value>, Failed> {
    let select = "select transfer_id, amount_cents from entries where account_id = $1 order by id";
    let rows: Vec<(i64, i64)> = sqlx::query_as(select).bind(id).fetch_all(&pool).await?;
    let entry = |(id, cents): &(i64, i64)| json!({ "transfer": id, "amount_cents": cents });
    let entries: Vec<_> = rows.iter().map(entry).collect();
    Ok(Json(json!({ "entries": entries, "next": null })))
}

async fn show_transfer(
    State(pool): State<PgPool>,
    Path(id): Path<i64>,
) -> Result<Json<Transfer>, Failed> {
    let select = sqlx::query_as("select * from transfers where id = $1").bind(id);
    Ok(Json(select.fetch_one(&pool).await?))
}

fn created(location: String, body: impl Serialize) -> Response {
    (StatusCode::CREATED, [(LOCATION, location)], Json(body)).into_response()
}

struct Failed(sqlx::Error);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}
