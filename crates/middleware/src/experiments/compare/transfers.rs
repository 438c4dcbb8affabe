//! Handlers that move money from one row to another, in four ways. Between the two updates each waits for another service,
//! which never answers until it is told to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;

/// What the handlers share, and the experiment looks at.
#[derive(Clone, Debug)]
pub struct Transfers {
    pool: PgPool,
    /// Whether the other service answers.
    answers: watch::Sender<bool>,
    /// How many have begun.
    pub begun: Arc<AtomicU64>,
    /// How many have made their first update and wait.
    pub half_done: Arc<AtomicU64>,
    /// How many have made both.
    pub finished: Arc<AtomicU64>,
    /// How many are neither finished nor dropped.
    pub alive: Arc<AtomicU64>,
}

/// Counts a transfer for as long as its future is there.
struct Alive(Arc<AtomicU64>);

impl Alive {
    fn among(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Done = Result<StatusCode, StatusCode>;

fn failed(_: sqlx::Error) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}

impl Transfers {
    /// Between the rows `2n` and `2n + 1` of `accounts`.
    pub fn new(pool: PgPool) -> Self {
        let answers = watch::Sender::new(false);
        let [begun, half_done, finished, alive] = [(); 4].map(|()| Arc::default());
        Self { pool, answers, begun, half_done, finished, alive }
    }

    /// The other service answers from now on.
    pub fn let_go_on(&self) {
        self.answers.send_replace(true);
    }

    /// `POST /{how}/{pair}`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/two-statements/{pair}", post(two_statements))
            .route("/transaction/{pair}", post(transaction))
            .route("/spawn/{pair}", post(spawned))
            .route("/blocking/{pair}", post(blocking))
            .with_state(self.clone())
    }

    async fn between(&self) {
        self.half_done.fetch_add(1, Ordering::SeqCst);
        // The sender lives as long as this.
        let _ = self.answers.subscribe().wait_for(|answers| *answers).await;
    }
}

async fn update(to: &mut PgConnection, id: i32, by: i64) -> Result<(), StatusCode> {
    let update = "update accounts set balance = balance + $2 where id = $1";
    sqlx::query(update).bind(id).bind(by).execute(to).await.map(drop).map_err(failed)
}

async fn two_statements(State(this): State<Transfers>, Path(pair): Path<i32>) -> Done {
    let _alive = Alive::among(&this.alive);
    this.begun.fetch_add(1, Ordering::SeqCst);
    let mut first = this.pool.acquire().await.map_err(failed)?;
    update(&mut first, 2 * pair, -1).await?;
    drop(first);
    this.between().await;
    let mut second = this.pool.acquire().await.map_err(failed)?;
    update(&mut second, 2 * pair + 1, 1).await?;
    this.finished.fetch_add(1, Ordering::SeqCst);
    Ok(StatusCode::OK)
}

async fn transaction(State(this): State<Transfers>, Path(pair): Path<i32>) -> Done {
    let _alive = Alive::among(&this.alive);
    let mut tx = this.pool.begin().await.map_err(failed)?;
    update(&mut tx, 2 * pair, -1).await?;
    this.between().await;
    update(&mut tx, 2 * pair + 1, 1).await?;
    tx.commit().await.map_err(failed)?;
    this.finished.fetch_add(1, Ordering::SeqCst);
    Ok(StatusCode::OK)
}

/// What the request waits for goes on without it.
async fn spawned(this: State<Transfers>, pair: Path<i32>) -> Done {
    let task = tokio::spawn(two_statements(this, pair));
    task.await.unwrap_or(Err(StatusCode::INTERNAL_SERVER_ERROR))
}

/// A call that blocks its thread. No `await`, so there is no place to stop.
async fn blocking() -> StatusCode {
    std::thread::sleep(Duration::from_millis(120));
    StatusCode::OK
}
