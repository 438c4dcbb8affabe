//! How does the same order work without anybody in charge? Each service reacts to what it hears of the others.
//!
//! In reading order: [`reactions`] is who does what on which event, and the only place where the whole flow can be
//! read, if one reads all of it; [`broker`] carries events from outboxes to inboxes.

pub mod broker;
pub mod reactions;

use std::sync::Arc;

use tokio::{
    sync::Notify,
    time::{Duration, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    broker::Member,
    reactions::{Event, Service},
};
use crate::{
    database::Database,
    error::Error,
    order::Order,
    store::{Store, orders::owner, outbox},
};

/// Before the broker is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the events go.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker.
    pub amqp: String,
    /// What the names of the exchange and of the queues begin with.
    pub prefix: String,
    /// How often to look for events that another process has left in an outbox.
    pub poll: Duration,
}

/// The services of this process, and their way to the broker.
pub struct Choreography {
    config: Config,
    services: Vec<Member>,
}

/// Which services run here, each with its database.
pub fn services(orders: Option<&Store>, parts: &[Option<Database>; 3]) -> Vec<Member> {
    let [inventory, payment, shipping] = parts;
    let all = [
        (Service::Orders, orders.map(|store| store.database().clone())),
        (Service::Inventory, inventory.clone()),
        (Service::Payment, payment.clone()),
        (Service::Shipping, shipping.clone()),
    ];
    let member = |(service, database)| {
        let database: Option<Database> = database;
        Some(Member { service, database: database?, filled: Notify::new() })
    };
    all.into_iter().filter_map(member).collect()
}

impl Choreography {
    /// Ready to run.
    pub fn new(config: Config, services: Vec<Member>) -> Self {
        Self { config, services }
    }

    // ANCHOR: place_choreographed
    /// A new order and the event that tells of it, or neither. If the key is known, the order that was made with it.
    pub async fn place(&self, id: Uuid, key: &str, order: &Order) -> Result<Uuid, Error> {
        let orders = self.services.iter().find(|member| member.service == Service::Orders);
        let orders = orders.ok_or(Error::NotFound)?;
        let known = orders
            .database
            .transaction(async |connection| {
                if !outbox::place(connection, id, key, order).await? {
                    return owner(connection, key, order).await.map(Some);
                }
                let event = Event::new("order.placed", id, order.clone());
                outbox::put(connection, &event.to_json()).await?;
                Ok(None)
            })
            .await?;
        orders.filled.notify_one();
        match known {
            None => Ok(id),
            Some((known, true)) => Ok(known),
            Some((_, false)) => Err(Error::KeyReused),
        }
    }
    // ANCHOR_END: place_choreographed

    /// Carries events until it is told to stop. What it leaves half done is undone, and delivered again.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let carry = async {
            loop {
                if let Err(error) = broker::carry(&self.config, &self.services).await {
                    tracing::warn!(%error, "the broker is away");
                }
                sleep(PAUSE).await;
            }
        };
        stop.run_until_cancelled(carry).await;
    }
}
