//! The answer as one writes it in an interview, with the textbook's formula: short, readable, and wrong in ways that
//! only tests find.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use url::Url;

const SCHEMA: &str = r#"
    create table if not exists whiteboard_links (
        code text primary key,
        url text not null,
        clicks bigint not null default 0,
        created_at timestamptz not null default now(),
        expires_at timestamptz
    )
"#;

/// The shortener on this database, reached at this URL.
pub async fn router(database: &str, own_url: &str) -> anyhow::Result<Router> {
    let database = PgPool::connect(database).await?;
    sqlx::raw_sql(SCHEMA).execute(&database).await?;
    Ok(Router::new()
        .route("/links", post(create))
        .route("/links/{code}", get(show).delete(delete))
        .route("/links/{code}/stats", get(show))
        .route("/{code}", get(redirect))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(async || "ok"))
        .with_state(Shortener { database, own_url: own_url.to_owned() }))
}

#[derive(Deserialize)]
struct NewLink {
    url: String,
    alias: Option<String>,
    expires_in_seconds: Option<i32>,
}

async fn create(State(it): State<Shortener>, Json(new): Json<NewLink>) -> Result<Response, Error> {
    if !Url::parse(&new.url).is_ok_and(|url| ["http", "https"].contains(&url.scheme())) {
        return Err(Error(422, "this is no http or https URL".to_owned()));
    }
    let mut hashed = new.url.clone();
    let code = loop {
        let code = new.alias.clone().unwrap_or_else(|| code(&hashed));
        match it.find(&code).await? {
            None => break code,
            Some(_) if new.alias.is_some() => return Err(Error(409, "taken".to_owned())),
            Some((link, _)) if link["url"] == new.url => return Ok(Json(link).into_response()),
            // A collision: append something and hash again.
            Some(_) => hashed.push('!'),
        }
    };
    sqlx::query(
        r#"
        insert into whiteboard_links (code, url, expires_at)
        values ($1, $2, now() + $3 * interval '1 second')
        "#,
    )
    .bind(&code)
    .bind(&new.url)
    .bind(new.expires_in_seconds)
    .execute(&it.database)
    .await?;
    let location = [(header::LOCATION, format!("/links/{code}"))];
    Ok((StatusCode::CREATED, location, Json(it.live(&code).await?)).into_response())
}

/// Seven characters of base62.
fn code(url: &str) -> String {
    format!("{:0>7}", base62::encode(u64::from(crc32fast::hash(url.as_bytes())) % 62_u64.pow(7)))
}

async fn redirect(
    State(it): State<Shortener>,
    Path(code): Path<String>,
) -> Result<Response, Error> {
    let link = it.live(&code).await?;
    let count = sqlx::query("update whiteboard_links set clicks = clicks + 1 where code = $1");
    count.bind(&code).execute(&it.database).await?;
    let url = link["url"].as_str().unwrap_or_default().to_owned();
    Ok((StatusCode::FOUND, [(header::LOCATION, url)]).into_response())
}

async fn show(State(it): State<Shortener>, Path(code): Path<String>) -> Result<Json<Value>, Error> {
    Ok(Json(it.live(&code).await?))
}

async fn delete(
    State(it): State<Shortener>,
    Path(code): Path<String>,
) -> Result<StatusCode, Error> {
    it.live(&code).await?;
    let delete = sqlx::query("delete from whiteboard_links where code = $1");
    delete.bind(&code).execute(&it.database).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Clone)]
struct Shortener {
    database: PgPool,
    own_url: String,
}

impl Shortener {
    /// The link as clients see it, and whether it has ended.
    async fn find(&self, code: &str) -> Result<Option<(Value, bool)>, sqlx::Error> {
        let find = sqlx::query_as(
            r#"
            select to_jsonb(link) || jsonb_build_object('short_url', $2 || code), coalesce(expires_at <= now(), false)
            from whiteboard_links as link
            where code = $1
            "#,
        );
        find.bind(code).bind(&self.own_url).fetch_optional(&self.database).await
    }

    async fn live(&self, code: &str) -> Result<Value, Error> {
        match self.find(code).await? {
            None => Err(Error(404, "there is no such link".to_owned())),
            Some((_, true)) => Err(Error(410, "this link has ended".to_owned())),
            Some((link, false)) => Ok(link),
        }
    }
}

/// A status, and what is wrong.
struct Error(u16, String);

impl<E: Into<anyhow::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self(500, error.into().to_string())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = Json(json!({ "title": self.1, "status": self.0 }));
        (status, [(header::CONTENT_TYPE, "application/problem+json")], problem).into_response()
    }
}
