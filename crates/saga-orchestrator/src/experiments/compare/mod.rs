//! How else could the same order be carried out? By events, without anybody in charge; or as one transaction over all
//! databases. Both use the participants of the answer, so that an experiment compares the way and nothing else.
//!
//! In reading order: [`choreography`], with who reacts to what ([`reactions`]), how events travel ([`broker`]) and what
//! is kept of them ([`events`]); and [`two_phase_commit`].

pub mod choreography;
pub mod reactions;
pub mod broker;
pub mod events;
pub mod two_phase_commit;

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, response::Response, routing::post};
use edge::Json;
use lab::{Service, Serving};
use sqlx::{PgConnection, types::Json as Column};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{choreography::Choreography, two_phase_commit::TwoPhaseCommit};
use crate::{
    api::{accepted, reading},
    caller::body,
    error::Error,
    order::Order,
    participant::Key,
    saga::Call,
    store::{Database, Store, calls::Asked},
};

/// What `serve` understands for the comparisons.
#[derive(clap::Args, Clone, Debug)]
pub struct Comparison {
    /// How orders are carried out
    #[arg(long, value_enum, default_value_t)]
    flow: Flow,
    /// Choreography: what the names of the exchange and the queues begin with
    #[arg(long, default_value = "worked-answers.saga-choreography.")]
    queue_prefix: String,
    /// Choreography: the broker, if not the one that is found
    #[arg(long, value_name = "URL")]
    amqp_url: Option<String>,
}

/// How orders are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Flow {
    /// An orchestrator calls each service in turn
    #[default]
    Orchestration,
    /// The services react to each other's events, over RabbitMQ
    Choreography,
    /// One transaction over all databases, to see what is wrong with it
    TwoPhaseCommit,
}

/// What runs in this process.
pub struct Parts {
    /// The orders, if they are kept here.
    pub store: Option<Store>,
    /// The databases of inventory, payment and shipping: of those that run here.
    pub databases: [Option<Database>; 3],
    /// Their URLs.
    pub urls: [Option<String>; 3],
}

/// Where work in the background is started, and told to stop.
pub struct Background {
    /// Tells it to stop.
    pub stop: CancellationToken,
    /// Waits for it.
    pub tasks: TaskTracker,
}

impl Comparison {
    /// Whether it is anything but the answer itself.
    pub fn is_asked_for(&self) -> bool {
        self.flow != Flow::Orchestration
    }

    /// Starts it; the calls of orders, if they are kept here.
    pub async fn start(
        &self,
        parts: Parts,
        poll: Duration,
        serving: &Serving,
        Background { stop, tasks }: Background,
    ) -> anyhow::Result<Router> {
        let orders = parts.store.clone();
        let way = if self.flow == Flow::Choreography {
            let amqp = match &self.amqp_url {
                Some(url) => url.clone(),
                None => serving.server(Service::RabbitMq).await?,
            };
            let config = broker::Config { amqp, prefix: self.queue_prefix.clone(), poll };
            let it = Arc::new(Choreography::new(config, parts));
            tasks.spawn(Arc::clone(&it).run(stop));
            Way::Choreography(it)
        } else {
            Way::TwoPhaseCommit(Arc::new(TwoPhaseCommit::new(parts)?))
        };
        let Some(store) = orders else { return Ok(Router::new()) };
        let calls = Router::new().route("/orders", post(create)).with_state((way, store.clone()));
        Ok(calls.merge(reading(store)))
    }
}

#[derive(Clone)]
enum Way {
    Choreography(Arc<Choreography>),
    TwoPhaseCommit(Arc<TwoPhaseCommit>),
}

async fn create(
    State((way, store)): State<(Way, Store)>,
    Key(key): Key,
    Json(order): Json<Order>,
) -> Result<Response, Error> {
    let id = Uuid::now_v7();
    let placed = match way {
        Way::Choreography(choreography) => choreography.place(id, &key, &order).await?,
        Way::TwoPhaseCommit(two_phase) => two_phase.place(id, &key, &order).await?,
    };
    Ok(accepted(&store.find(placed).await?))
}

/// What a participant is asked, as the orchestrator would ask it.
fn asked(call: Call, order_id: Uuid, order: &Order) -> Asked {
    Asked { order_id, key: format!("{order_id}.{call}"), request: body(call, order_id, order) }
}

/// An order that no orchestrator looks after; whether the key was free.
async fn place(
    connection: &mut PgConnection,
    id: Uuid,
    key: &str,
    order: &Order,
) -> sqlx::Result<bool> {
    let new = sqlx::query(
        r#"
        insert into orders (id, idempotency_key, request, records, due_at)
        values ($1, $2, $3, 0, null)
        on conflict (idempotency_key) do nothing
        "#,
    )
    .bind(id)
    .bind(key)
    .bind(Column(order))
    .execute(connection)
    .await?;
    Ok(new.rows_affected() > 0)
}

/// How the order goes on, unless it has ended.
async fn set_status(connection: &mut PgConnection, id: Uuid, status: &str) -> sqlx::Result<()> {
    sqlx::query(
        r#"
        update orders
        set status = $2
        where id = $1 and status in ('pending', 'cancelling')
        "#,
    )
    .bind(id)
    .bind(status)
    .execute(connection)
    .await?;
    Ok(())
}
