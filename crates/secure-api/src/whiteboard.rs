//! Invoices as tutorials write them: a token, some queries, CORS for everybody. Each attack of the chapter works on it.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgPool, query, query_as, query_scalar};
use tower_http::cors::CorsLayer;
use uuid::Uuid;

const SECRET: &[u8] = b"secret";

#[derive(Serialize, Deserialize)]
struct User {
    sub: Uuid,
    customer: Uuid,
    role: String,
    exp: u64,
}

type Db = State<PgPool>;
type Reply = Result<Json<Value>, Failed>;
type Made = Result<(StatusCode, Json<Value>), Failed>;

/// All of the service, on the tables of the migrations.
pub fn router(database_url: &str) -> Result<Router, sqlx::Error> {
    Ok(Router::new()
        .route("/login", post(login))
        .route("/invoices", get(list).post(create))
        .route("/invoices/{id}", get(show).patch(change).delete(delete))
        .route("/v0/invoices/{id}", get(show).delete(delete))
        .route("/exports", get(list))
        .route("/webhooks", post(add_webhook))
        .route("/webhooks/{id}/test", post(test_webhook))
        .route("/admin/customers", get(customers))
        .route("/healthz", get("alive"))
        .route("/readyz", get("ready"))
        .layer(CorsLayer::very_permissive())
        .with_state(PgPool::connect_lazy(database_url)?))
}

/// The hash of a password.
pub fn hash(password: &str) -> String {
    Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn login(State(db): Db, Json(body): Json<Value>) -> Reply {
    let email = body["email"].as_str().unwrap_or_default();
    let select = "select id, customer_id, role, password_hash from users where email = ";
    let select = format!("{select}'{email}'");
    let found = query_as(AssertSqlSafe(select)).fetch_optional(&db).await?;
    let (sub, customer, role, known): (Uuid, Uuid, String, String) =
        found.ok_or(Failed(StatusCode::UNAUTHORIZED, "no such user".into()))?;
    if known != hash(body["password"].as_str().unwrap_or_default()) {
        return Err(Failed(StatusCode::UNAUTHORIZED, "wrong password".into()));
    }
    let exp = jsonwebtoken::get_current_timestamp() + 86_400;
    let key = EncodingKey::from_secret(SECRET);
    let token = encode(&Header::default(), &User { sub, customer, role, exp }, &key)?;
    Ok(Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": 86_400 })))
}

fn user(headers: &HeaderMap) -> Result<User, Failed> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let token = decode(token, &DecodingKey::from_secret(SECRET), &Validation::default());
    token.map(|it| it.claims).map_err(|it| Failed(StatusCode::UNAUTHORIZED, it.to_string()))
}

async fn list(State(db): Db, headers: HeaderMap, Query(page): Query<Value>) -> Reply {
    let part = |name: &str, usual| page[name].as_str().unwrap_or(usual).to_owned();
    let select = format!(
        "select to_jsonb(invoices) from invoices where customer_id = '{}' and title like '%{}%' \
         order by {} limit {}",
        user(&headers)?.customer,
        part("search", ""),
        part("sort", "created_at"),
        part("limit", "20")
    );
    let items: Vec<Value> = query_scalar(AssertSqlSafe(select)).fetch_all(&db).await?;
    Ok(Json(json!({ "items": items })))
}

async fn create(State(db): Db, headers: HeaderMap, Json(new): Json<Value>) -> Made {
    let insert = "insert into invoices (id, customer_id, title, note, amount_cents, paid, margin_cents) \
         select $1, coalesce(customer_id, $2), title, coalesce(note, ''), amount_cents, \
         coalesce(paid, false), coalesce(margin_cents, 0) \
         from jsonb_populate_record(null::invoices, $3) returning to_jsonb(invoices)";
    let insert = query_scalar(insert).bind(Uuid::now_v7()).bind(user(&headers)?.customer);
    Ok((StatusCode::CREATED, Json(insert.bind(new).fetch_one(&db).await?)))
}

async fn show(State(db): Db, headers: HeaderMap, id: Path<Uuid>) -> Reply {
    user(&headers)?;
    let select = "select to_jsonb(invoices) from invoices where id = $1";
    Ok(Json(query_scalar(select).bind(id.0).fetch_one(&db).await?))
}

async fn change(State(db): Db, headers: HeaderMap, id: Path<Uuid>, new: Json<Value>) -> Reply {
    user(&headers)?;
    let update = "update invoices set title = r.title, note = r.note, paid = r.paid, \
         amount_cents = r.amount_cents, margin_cents = r.margin_cents, customer_id = r.customer_id \
         from (select (jsonb_populate_record(i, $2)).* from invoices as i where i.id = $1) as r \
         where invoices.id = $1 returning to_jsonb(invoices)";
    Ok(Json(query_scalar(update).bind(id.0).bind(new.0).fetch_one(&db).await?))
}

async fn delete(State(db): Db, id: Path<Uuid>) -> Result<StatusCode, Failed> {
    query("delete from invoices where id = $1").bind(id.0).execute(&db).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add_webhook(State(db): Db, headers: HeaderMap, new: Json<Value>) -> Made {
    let insert = "insert into webhooks values ($1, $2, $3) returning to_jsonb(webhooks)";
    let insert = query_scalar(insert).bind(Uuid::now_v7()).bind(user(&headers)?.customer);
    Ok((StatusCode::CREATED, Json(insert.bind(new["url"].as_str()).fetch_one(&db).await?)))
}

async fn test_webhook(State(db): Db, id: Path<Uuid>) -> Reply {
    let select = query_scalar("select url from webhooks where id = $1").bind(id.0);
    let url: String = select.fetch_one(&db).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.post(url).send().await?.text().await?;
    Ok(Json(json!({ "delivered": true, "answer": answer })))
}

async fn customers(State(db): Db, headers: HeaderMap) -> Reply {
    user(&headers)?;
    let select = "select jsonb_build_object('items', jsonb_agg(customers)) from customers";
    Ok(Json(query_scalar(select).fetch_one(&db).await?))
}

struct Failed(StatusCode, String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}
