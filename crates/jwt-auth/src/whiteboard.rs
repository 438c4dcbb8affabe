//! Logging in as one writes it in the interview: HS256 with one secret, a day's expiry, SHA-256, no state.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

const SECRET: &[u8] = b"secret";
const DAY: u64 = 24 * 60 * 60;

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    email: String,
    exp: u64,
}

/// All of the service, on the table `users`.
pub fn router(database_url: &str) -> anyhow::Result<Router> {
    Ok(Router::new()
        .route("/register", post(register))
        .route("/login", post(login))
        .route("/token/refresh", post(refresh))
        .route("/me", get(me))
        // The client deletes its token.
        .route("/logout", post(StatusCode::NO_CONTENT))
        .route("/logout/everywhere", post(StatusCode::NO_CONTENT))
        .route("/healthz", get("alive"))
        .route("/readyz", get("ready"))
        .with_state(PgPool::connect_lazy(database_url)?))
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

async fn register(
    State(pool): State<PgPool>,
    Json(Credentials { email, password }): Json<Credentials>,
) -> Result<Response, Failed> {
    let id = Uuid::now_v7();
    let insert = "insert into users (id, email, mailbox, password_hash) values ($1, $2, $2, $3) \
                  on conflict do nothing";
    let insert = sqlx::query(insert).bind(id).bind(&email).bind(hash(&password));
    if insert.execute(&pool).await?.rows_affected() == 0 {
        return Ok((StatusCode::CONFLICT, "this user exists").into_response());
    }
    let user = Json(json!({ "id": id, "email": email }));
    Ok((StatusCode::CREATED, [("location", "/me")], user).into_response())
}

async fn login(
    State(pool): State<PgPool>,
    Json(Credentials { email, password }): Json<Credentials>,
) -> Result<Response, Failed> {
    let select = "select id, password_hash from users where email = $1";
    let select = sqlx::query_as(select).bind(&email);
    let Some((id, password_hash)): Option<(Uuid, String)> = select.fetch_optional(&pool).await?
    else {
        return Ok((StatusCode::UNAUTHORIZED, "no such user").into_response());
    };
    if password_hash != hash(&password) {
        return Ok((StatusCode::UNAUTHORIZED, "wrong password").into_response());
    }
    Ok(Json(tokens(id, &email)?).into_response())
}

#[derive(Deserialize)]
struct Refresh {
    refresh_token: String,
}

async fn refresh(Json(Refresh { refresh_token }): Json<Refresh>) -> Result<Json<Value>, Failed> {
    let Claims { sub, email, .. } = verify(&refresh_token)?;
    Ok(Json(tokens(sub, &email)?))
}

async fn me(headers: HeaderMap) -> Result<Json<Value>, Failed> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let Claims { sub, email, .. } = verify(token)?;
    Ok(Json(json!({ "id": sub, "email": email })))
}

fn tokens(sub: Uuid, email: &str) -> Result<Value, Failed> {
    Ok(json!({
        "access_token": sign(sub, email, DAY)?,
        "token_type": "Bearer",
        "expires_in": DAY,
        "refresh_token": sign(sub, email, 30 * DAY)?,
    }))
}

fn sign(sub: Uuid, email: &str, life: u64) -> jsonwebtoken::errors::Result<String> {
    let exp = jsonwebtoken::get_current_timestamp() + life;
    let claims = Claims { sub, email: email.to_owned(), exp };
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET))
}

fn verify(token: &str) -> jsonwebtoken::errors::Result<Claims> {
    Ok(decode(token, &DecodingKey::from_secret(SECRET), &Validation::default())?.claims)
}

fn hash(password: &str) -> String {
    Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Failed(StatusCode, String);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<jsonwebtoken::errors::Error> for Failed {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self(StatusCode::UNAUTHORIZED, error.to_string())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}
