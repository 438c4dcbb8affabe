//! What do tests, experiments and cases start from? Fresh databases, and the services on them as processes of their own.

use std::{fmt::Display, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
    queues::Queues,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::compare::reactions;
use crate::{
    EFFECTS, INVENTORY, MIGRATIONS,
    cases::client::{Client, PATIENCE, changed, order},
};

const NAME: &str = "saga-orchestrator";
/// The participants, as the options and the addresses call them.
pub const PARTICIPANTS: [&str; 3] = ["inventory", "payment", "shipping"];
/// All of them, as `--only` takes them.
pub const ALL: &str = "inventory,payment,shipping";
/// What each order of the experiments is for, one of it.
pub const SKU: &str = "book";

/// Fresh databases. They are dropped with this value, so it has to outlive its processes.
#[derive(Debug)]
pub struct Fixture {
    /// The orchestrator's database.
    pub orders: Database,
    /// The databases of the participants, which several orchestrators may share.
    pub parts: Arc<Participants>,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh() -> anyhow::Result<Self> {
        Ok(Self {
            orders: Database::fresh(NAME, &MIGRATIONS).await?,
            parts: Arc::new(Participants {
                inventory: Database::fresh_part(NAME, "inventory", &INVENTORY).await?,
                payment: Database::fresh_part(NAME, "payment", &EFFECTS).await?,
                shipping: Database::fresh_part(NAME, "shipping", &EFFECTS).await?,
            }),
        })
    }

    /// For an experiment, whose report names the server.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh().await
    }

    /// On a server of the experiment's own.
    pub async fn on(server: &str) -> anyhow::Result<Self> {
        Ok(Self {
            orders: Database::fresh_on(server, NAME, &MIGRATIONS).await?,
            parts: Arc::new(Participants {
                inventory: Database::fresh_on(server, "saga-inventory", &INVENTORY).await?,
                payment: Database::fresh_on(server, "saga-payment", &EFFECTS).await?,
                shipping: Database::fresh_on(server, "saga-shipping", &EFFECTS).await?,
            }),
        })
    }

    /// For another orchestrator of the same participants.
    pub async fn beside(&self) -> anyhow::Result<Self> {
        let orders = Database::fresh(NAME, &MIGRATIONS).await?;
        Ok(Self { orders, parts: Arc::clone(&self.parts) })
    }

    /// Prepares all four services in one process.
    pub fn serve(&self) -> ChildBuilder {
        self.serve_on(self.parts.databases().map(Database::url))
    }

    /// The same, with the databases of the participants at these URLs.
    pub fn serve_on(&self, databases: [&str; 3]) -> ChildBuilder {
        let child = Child::serve(NAME).database(&self.orders);
        PARTICIPANTS
            .into_iter()
            .zip(databases)
            .fold(child, |child, (name, url)| child.arg("--database").arg(format!("{name}={url}")))
    }

    /// Prepares only these services in one process: `inventory,payment`.
    pub fn serve_only(&self, names: &str) -> ChildBuilder {
        self.serve().args(&["--only", names])
    }

    /// Prepares an orchestrator that finds its participants at these addresses, each `host:port`.
    pub fn orchestrator(&self, addresses: [impl Display; 3]) -> ChildBuilder {
        let child = Child::serve(NAME).database(&self.orders).args(&["--only", "orchestrator"]);
        PARTICIPANTS.into_iter().zip(addresses).fold(child, |child, (name, address)| {
            child.arg("--participant").arg(format!("{name}=http://{address}/{name}"))
        })
    }

    /// The log of an order, as a line for each record: its number, its text, the milliseconds since the first, and the
    /// fencing token.
    pub async fn timeline(&self, id: Uuid) -> anyhow::Result<Vec<(i32, Value, f64, i64)>> {
        let mut connection = PgConnection::connect(self.orders.url()).await?;
        let rows = sqlx::query_as(
            r#"
            select
                number,
                record,
                (extract(epoch from at - min(at) over ()) * 1000)::float8,
                fence
            from saga_log
            where order_id = $1
            order by number
            "#,
        )
        .bind(id)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(rows)
    }
}

/// Starts a process that has been prepared; and a client of it.
pub async fn start(process: ChildBuilder) -> anyhow::Result<(Child, Client)> {
    let child = process.start().await?;
    let client = Client::at(child.url())?;
    Ok((child, client))
}

/// An exchange and queues for a choreography, deleted in the end. With the dot that its prefix has to end in.
pub async fn queues() -> anyhow::Result<(Queues, String)> {
    let mut queues = Queues::fresh(NAME).await?;
    let prefix = format!("{}.", queues.prefix());
    let services = reactions::Service::ALL.map(reactions::Service::name);
    let names = services.into_iter().chain(["dead"]).map(|name| format!("{prefix}{name}"));
    queues.expect(names, [format!("{prefix}events"), format!("{prefix}dead")])?;
    Ok((queues, prefix))
}

/// The databases of the participants.
#[derive(Debug)]
pub struct Participants {
    /// Its stock.
    pub inventory: Database,
    /// Its ledger.
    pub payment: Database,
    /// Its shipments.
    pub shipping: Database,
}

impl Participants {
    /// In the order of [`PARTICIPANTS`].
    pub fn databases(&self) -> [&Database; 3] {
        [&self.inventory, &self.payment, &self.shipping]
    }

    /// Puts this many in stock.
    pub async fn stock(&self, quantity: i64) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(self.inventory.url()).await?;
        sqlx::query("insert into stock (sku, available) values ($1, $2)")
            .bind(SKU)
            .bind(quantity)
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    }
}

/// An order of one book, whose end is decided by how it is paid and where it goes.
pub fn book_order(payment_method: &str, country: &str) -> Value {
    let one = changed(order(SKU), "items.0.quantity", 1);
    changed(changed(one, "payment_method", payment_method), "address.country", country)
}

/// Waits until the order of this key has ended or is stuck; its id and its status. It asks the database, past every
/// proxy.
pub async fn ended(connection: &mut PgConnection, key: &str) -> anyhow::Result<(Uuid, String)> {
    let (id, status) = end_within(connection, key, PATIENCE).await?;
    ensure!(is_end(&status), "{key} does not end: {status}");
    Ok((id, status))
}

/// Whether nothing more happens to an order of this status by itself.
pub fn is_end(status: &str) -> bool {
    !matches!(status, "pending" | "cancelling")
}

/// The same, for as long as this: then its status is that of an order on its way.
pub async fn end_within(
    connection: &mut PgConnection,
    key: &str,
    patience: Duration,
) -> anyhow::Result<(Uuid, String)> {
    let begun = Instant::now();
    loop {
        let is_over = begun.elapsed() >= patience;
        let seen: Option<(Uuid, String)> =
            sqlx::query_as("select id, status from orders where idempotency_key = $1")
                .bind(key)
                .fetch_optional(&mut *connection)
                .await?;
        match seen {
            Some((id, status)) if is_over || is_end(&status) => return Ok((id, status)),
            _ => ensure!(!is_over, "there is no order {key}"),
        }
        // Often, because an experiment measures how long an order takes.
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a message that comes soon or never.
pub async fn soon<T>(coming: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(PATIENCE, coming).await.context("waited in vain for a message")?
}
