//! The notification system as one writes it in the interview: one queue, competing workers, a channel to the sockets.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State, WebSocketUpgrade},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures_util::StreamExt;
use lapin::{Channel, Connection, ConnectionProperties, options, types::FieldTable};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::{Mutex, broadcast};

const TABLE: &str = "create table if not exists whiteboard_jobs (
    seq bigserial, job_id text primary key, user_id text not null, channel text not null,
    title text not null, body text not null, status text default 'queued', attempts int default 0)";

#[derive(Clone)]
struct App {
    db: PgPool,
    broker: Channel,
    queue: lapin::types::ShortString,
    tickets: Arc<Mutex<HashMap<String, String>>>,
    sockets: broadcast::Sender<(String, Value)>,
}

/// All of the service, and a worker beside it.
pub async fn router(database_url: &str, broker_url: &str) -> anyhow::Result<Router> {
    let db = PgPool::connect(database_url).await?;
    sqlx::raw_sql(TABLE).execute(&db).await?;
    let connection = Connection::connect(broker_url, ConnectionProperties::default()).await?;
    let broker = connection.create_channel().await?;
    let database = database_url.rsplit('/').next().unwrap_or_default();
    let queue = format!("worked-answers.whiteboard.{database}").into();
    let durable = options::QueueDeclareOptions { durable: true, ..Default::default() };
    let mut arguments = FieldTable::default(); // It goes a minute after its last worker.
    arguments.insert("x-expires".into(), 60_000.into());
    let app = App { db, broker, queue, tickets: Arc::default(), sockets: broadcast::channel(64).0 };
    app.broker.queue_declare(app.queue.clone(), durable, arguments).await?;
    tokio::spawn(work(app.clone(), connection));
    Ok(Router::new()
        .route("/notifications", post(notify))
        .route("/notifications/{job_id}", get(progress))
        .route("/users/{user}/stream-tickets", post(ticket))
        .route("/users/{user}/stream", get(stream))
        .route("/users/{user}/devices/{token}", put(async || StatusCode::NO_CONTENT))
        .with_state(app))
}

async fn notify(State(app): State<App>, Json(body): Json<Value>) -> Result<Response, Failed> {
    let field = |name: &str| body[name].as_str().map(str::to_owned);
    let job = field("job_id").unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let insert = "insert into whiteboard_jobs (job_id, user_id, channel, title, body) \
                  values ($1, $2, $3, $4, $5) on conflict do nothing";
    let insert = sqlx::query(insert).bind(&job).bind(field("user_id")).bind(field("channel"));
    let insert = insert.bind(field("title")).bind(field("body")).execute(&app.db).await?;
    let mut status = StatusCode::OK;
    if insert.rows_affected() == 1 {
        let persistent = lapin::BasicProperties::default().with_delivery_mode(2);
        let (queue, none) = (app.queue.clone(), options::BasicPublishOptions::default());
        app.broker.basic_publish("".into(), queue, none, job.as_bytes(), persistent).await?;
        status = StatusCode::ACCEPTED;
    }
    let location = [("location", format!("/notifications/{job}"))];
    Ok((status, location, Json(json!({ "job_id": job }))).into_response())
}

async fn work(app: App, _open: Connection) -> anyhow::Result<()> {
    let (options, none) = (options::BasicConsumeOptions::default(), FieldTable::default());
    let mut jobs = app.broker.basic_consume(app.queue.clone(), "".into(), options, none).await?;
    while let Some(job) = jobs.next().await.transpose()? {
        let again = options::BasicNackOptions { requeue: true, multiple: false };
        match deliver(&app, &String::from_utf8_lossy(&job.data)).await {
            Ok(()) => job.ack(options::BasicAckOptions::default()).await?,
            Err(_) => job.nack(again).await?,
        };
    }
    Ok(())
}

async fn deliver(app: &App, job: &str) -> anyhow::Result<()> {
    let begin = "update whiteboard_jobs set attempts = attempts + 1 where job_id = $1 returning \
        user_id, channel, json_build_object('seq', seq, 'job_id', job_id, 'title', title, 'body', body)";
    let job_row = sqlx::query_as(begin).bind(job).fetch_one(&app.db).await?;
    let (user, channel, frame): (String, String, Value) = job_row;
    if channel == "push" {
        tokio::time::sleep(Duration::from_millis(50)).await;
        anyhow::bail!("the provider of pushes knows no such device");
    }
    let end = "update whiteboard_jobs set status = 'delivered' where job_id = $1";
    sqlx::query(end).bind(job).execute(&app.db).await?;
    let _ = app.sockets.send((user, frame));
    Ok(())
}

async fn progress(State(app): State<App>, Path(job): Path<String>) -> Result<Json<Value>, Failed> {
    let select = "select status, attempts from whiteboard_jobs where job_id = $1";
    let row: (String, i32) = sqlx::query_as(select).bind(job).fetch_one(&app.db).await?;
    Ok(Json(json!({ "status": row.0, "attempts": row.1, "last_error": null })))
}

async fn ticket(State(app): State<App>, Path(user): Path<String>) -> impl IntoResponse {
    let ticket = uuid::Uuid::new_v4().to_string();
    app.tickets.lock().await.insert(ticket.clone(), user);
    (StatusCode::CREATED, Json(json!({ "ticket": ticket })))
}

async fn stream(
    State(app): State<App>,
    Path(user): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Failed> {
    if app.tickets.lock().await.remove(&query["ticket"]).as_ref() != Some(&user) {
        return Ok(StatusCode::UNAUTHORIZED.into_response());
    }
    let after: i64 = query.get("after").map_or(Ok(0), |after| after.parse())?;
    let mut live = app.sockets.subscribe();
    let select = "select json_build_object('seq', seq, 'job_id', job_id, 'title', title, 'body', body) \
        from whiteboard_jobs where user_id = $1 and seq > $2 and channel = 'websocket' order by seq";
    let missed = sqlx::query_scalar(select).bind(&user).bind(after).fetch_all(&app.db).await?;
    Ok(upgrade.on_upgrade(async move |mut socket| {
        for frame in missed as Vec<Value> {
            let _ = socket.send(frame.to_string().into()).await;
        }
        while let Ok((to, frame)) = live.recv().await {
            if to == user {
                let _ = socket.send(frame.to_string().into()).await;
            }
        }
    }))
}

struct Failed(String);

impl<E: std::fmt::Display> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0).into_response()
    }
}
