//! How does the same order work without anybody in charge? Each service reacts to what it hears of the others.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Parts,
    broker::{self, Config, Member},
    events, place,
    reactions::{Event, Service},
};
use crate::{error::Error, order::Order, store::orders::owner};

/// Before the broker is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The services of this process, and their way to the broker.
pub struct Choreography {
    config: Config,
    services: Vec<Member>,
}

impl Choreography {
    /// Ready to run.
    pub fn new(config: Config, Parts { store, databases, .. }: Parts) -> Self {
        let [inventory, payment, shipping] = databases;
        let all = [
            (Service::Orders, store.map(|store| store.database)),
            (Service::Inventory, inventory),
            (Service::Payment, payment),
            (Service::Shipping, shipping),
        ];
        let services = all.into_iter().filter_map(|(service, database)| {
            Some(Member { service, database: database?, filled: Notify::new() })
        });
        Self { config, services: services.collect() }
    }

    /// A new order and the event that tells of it, or neither. If the key is known, the order that was made with it.
    pub async fn place(&self, id: Uuid, key: &str, order: &Order) -> Result<Uuid, Error> {
        let orders = self.services.iter().find(|member| member.service == Service::Orders);
        let orders = orders.ok_or(Error::NotFound)?;
        let known = orders.database.transaction(async |connection| {
            if !place(connection, id, key, order).await? {
                return owner(connection, key, order).await;
            }
            let event = Event::new("order.placed", id, order.clone());
            events::put(connection, &event.to_json()).await?;
            Ok(None)
        });
        let known = known.await;
        // Also after an error: the commit may have happened, and only its answer was lost.
        orders.filled.notify_one();
        match known? {
            None => Ok(id),
            Some((known, true)) => Ok(known),
            Some((_, false)) => Err(Error::KeyReused),
        }
    }

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
        let forget = join_all(self.services.iter().map(broker::forget));
        stop.run_until_cancelled(async { tokio::join!(carry, forget) }).await;
    }
}
