//! The index as one makes it in the interview: one statement, on the column of the example.

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, FromRow, PgPool, types};

/// The statement of the question.
const INDEX: &str = "CREATE INDEX IF NOT EXISTS idx_email ON users(email)";

/// Five queries that look like the first one.
const QUERIES: [(&str, &str, &[&str]); 6] = [
    ("by_email", "select id, name from users where email = $1", &["email"]),
    (
        "by_email_in_any_case",
        "select id, name from users where lower(email) = lower($1)",
        &["email"],
    ),
    ("by_end_of_email", "select id, name from users where email like '%' || $1", &["end"]),
    (
        "by_email_or_name",
        "select id, name from users where email = $1 or name = $2",
        &["email", "name"],
    ),
    ("by_id_as_number", "select id, name from users where id = $1::text::numeric", &["id"]),
    ("from_email_on", "select id, name from users where email >= $1", &["email"]),
];

#[derive(Serialize, FromRow)]
struct User {
    id: i64,
    email: String,
    name: String,
    city: String,
}

#[derive(Deserialize)]
struct NewUser {
    email: String,
    name: String,
    city: String,
    born: String,
}

#[derive(Deserialize)]
struct ByEmail {
    email: String,
}

#[derive(Deserialize)]
struct Index {
    columns: Vec<String>,
}

/// All of the service, on the table `users`.
pub async fn router(database_url: &str) -> anyhow::Result<Router> {
    let db = PgPool::connect(database_url).await?;
    sqlx::query(INDEX).execute(&db).await?;
    Ok(Router::new()
        .route("/queries/{name}/run", post(run))
        .route("/indexes/{name}", put(create_index).delete(drop_index))
        .route("/users", get(find).post(create))
        .route("/users/{id}", get(show))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(db))
}

async fn run(
    State(db): State<PgPool>,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Failed> {
    let found = QUERIES.iter().find(|query| query.0 == name);
    let (_, sql, names) = found.ok_or(Failed(sqlx::Error::RowNotFound))?;
    let sql = format!("explain (analyze, buffers, format json) {sql}");
    let mut explain = sqlx::query_scalar(AssertSqlSafe(sql));
    for name in *names {
        let value = &body["params"][name];
        explain = explain.bind(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    let types::Json::<Value>(plan) = explain.fetch_one(&db).await?;
    let top = &plan[0]["Plan"];
    Ok(Json(json!({
        "rows": top["Actual Rows"],
        "milliseconds": plan[0]["Execution Time"],
        "buffers": { "hit": top["Shared Hit Blocks"], "read": top["Shared Read Blocks"] },
        "plan": plan,
    })))
}

async fn create_index(
    State(db): State<PgPool>,
    Path(name): Path<String>,
    Json(index): Json<Index>,
) -> Result<StatusCode, Failed> {
    let sql = format!("CREATE INDEX {name} ON users({})", index.columns.join(", "));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&db).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn drop_index(
    State(db): State<PgPool>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX {name}"))).execute(&db).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create(State(db): State<PgPool>, Json(new): Json<NewUser>) -> Result<Response, Failed> {
    let insert = "insert into users (email, name, city, born) values ($1, $2, $3, $4::date) returning id, email, name, city";
    let insert = sqlx::query_as(insert).bind(new.email).bind(new.name).bind(new.city);
    let user: User = insert.bind(new.born).fetch_one(&db).await?;
    Ok((StatusCode::CREATED, [("location", format!("/users/{}", user.id))], Json(user))
        .into_response())
}

async fn find(State(db): State<PgPool>, Query(by): Query<ByEmail>) -> Result<Json<Value>, Failed> {
    let find = "select id, email, name, city from users where email = $1";
    let items: Vec<User> = sqlx::query_as(find).bind(by.email).fetch_all(&db).await?;
    Ok(Json(json!({ "items": items })))
}

async fn show(State(db): State<PgPool>, Path(id): Path<i64>) -> Result<Json<User>, Failed> {
    let show = "select id, email, name, city from users where id = $1";
    Ok(Json(sqlx::query_as(show).bind(id).fetch_one(&db).await?))
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
