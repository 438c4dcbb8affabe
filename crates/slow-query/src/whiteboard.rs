//! The slow query as one treats it in the interview: EXPLAIN, and then the list that everybody knows.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, types};

/// The queries, and what people propose.
const PATIENTS: &str = include_str!("patients.json");

/// All of the service, on tables that are filled already.
pub async fn router(database_url: &str) -> anyhow::Result<Router> {
    let db = PgPool::connect(database_url).await?;
    Ok(Router::new()
        .route("/patients", get(async || Json(json!({ "items": patients() }))))
        .route("/patients/{name}", get(async |Path(name): Path<String>| find(&name).map(Json)))
        .route("/patients/{name}/diagnosis", post(diagnose))
        .route("/patients/{name}/remedies/{remedy}", post(treat))
        .route("/diagnosis", post(read))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(db))
}

fn patients() -> Vec<Value> {
    serde_json::from_str(PATIENTS).expect("our own patients")
}

fn named(items: &[Value], name: &str) -> Result<Value, Failed> {
    let found = items.iter().find(|item| item["name"] == name);
    found.cloned().ok_or(Failed(sqlx::Error::RowNotFound))
}

fn find(name: &str) -> Result<Value, Failed> {
    named(&patients(), name)
}

/// The list that everybody knows.
fn findings(sql: &str, plan: &Value) -> Vec<Value> {
    let text = plan.to_string();
    let sql = sql.to_lowercase();
    let rules = [
        ("full_scan", text.contains("Seq Scan"), "a Seq Scan: add an index on the filtered column"),
        ("loops", sql.contains("(select"), "a subquery: rewrite it as a join"),
        ("select_star", sql.contains("select *"), "SELECT *: name the columns"),
        ("discards", !sql.contains("limit"), "no LIMIT: add one"),
        ("spills", sql.contains("order by"), "ORDER BY: add an index on the sorted column"),
    ];
    let found = rules.iter().filter(|(_, applies, _)| *applies);
    found.map(|(kind, _, words)| json!({ "kind": kind, "words": words, "node": "" })).collect()
}

async fn explain(db: &PgPool, sql: &str) -> Result<Value, Failed> {
    let explain = AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"));
    let types::Json(plan) = sqlx::query_scalar(explain).fetch_one(db).await?;
    Ok(plan)
}

fn shown(plan: &Value) -> Value {
    let top = &plan[0]["Plan"];
    let count = |name: &str| top[name].as_f64().unwrap_or_default();
    json!({
        "milliseconds": plan[0]["Execution Time"],
        "pages": count("Shared Hit Blocks") + count("Shared Read Blocks"),
        "rows": top["Actual Rows"],
        "plan": plan,
    })
}

async fn diagnose(
    State(db): State<PgPool>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Failed> {
    let patient = find(&name)?;
    let sql = patient["sql"].as_str().unwrap_or_default();
    let plan = explain(&db, sql).await?;
    let mut answer = shown(&plan);
    answer["patient"] = json!(name);
    answer["findings"] = json!(findings(sql, &plan));
    Ok(Json(answer))
}

/// Before, the remedy, after: if the planner's cost is lower, it helps.
async fn treat(
    State(db): State<PgPool>,
    Path((name, remedy)): Path<(String, String)>,
    Json(how): Json<Value>,
) -> Result<Json<Value>, Failed> {
    let patient = find(&name)?;
    let remedies = patient["remedies"].as_array().cloned().unwrap_or_default();
    let remedy = named(&remedies, &remedy)?;
    let sql = patient["sql"].as_str().unwrap_or_default();
    let before = explain(&db, sql).await?;
    for statements in [&remedy["statements"]["apply"], &remedy["settings"]] {
        if let Some(statements) = statements.as_str() {
            let statements = AssertSqlSafe(statements.replace("set local", "set"));
            sqlx::raw_sql(statements).execute(&db).await?;
        }
    }
    let after = explain(&db, remedy["rewrite"].as_str().unwrap_or(sql)).await?;
    let cost = |plan: &Value| plan[0]["Plan"]["Total Cost"].as_f64().unwrap_or_default();
    let effect = if cost(&after) < cost(&before) { "helps" } else { "does_nothing" };
    Ok(Json(json!({
        "patient": name,
        "remedy": remedy["name"],
        "dry_run": how["dry_run"],
        "same_rows": before[0]["Plan"]["Actual Rows"] == after[0]["Plan"]["Actual Rows"],
        "effect": effect,
        "before": shown(&before),
        "after": shown(&after),
    })))
}

async fn read(Json(body): Json<Value>) -> Json<Value> {
    let plan = &body["plan"];
    let mut answer = shown(plan);
    answer["findings"] = json!(findings("", plan));
    Json(answer)
}

struct Failed(sqlx::Error);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self.0 {
            sqlx::Error::RowNotFound => StatusCode::NOT_FOUND.into_response(),
            error => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}
