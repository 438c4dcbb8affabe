//! What do the experiments stand on? The services as processes of their own, their databases, and the books of all of
//! them, which must balance in the end.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use lab::{
    Lab,
    child::{Child, ChildBuilder},
    database::Database,
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::{INVENTORY, PAYMENT, SHIPPING, order::Order};

/// Whatever has not happened by then will not happen.
const PATIENCE: Duration = Duration::from_mins(1);
/// What each order of the experiments costs.
pub const AMOUNT: i64 = 2_500;
/// What each order of the experiments is for, one of it.
pub const SKU: &str = "book";

/// The databases of the participants.
#[derive(Debug)]
pub struct Participants {
    pub inventory: Database,
    pub payment: Database,
    pub shipping: Database,
}

impl Participants {
    pub async fn new(lab: &Lab) -> anyhow::Result<Self> {
        Ok(Self {
            inventory: lab.database_named("inventory", &INVENTORY).await?,
            payment: lab.database_named("payment", &PAYMENT).await?,
            shipping: lab.database_named("shipping", &SHIPPING).await?,
        })
    }

    /// Gives them to a child.
    pub fn give(&self, child: ChildBuilder) -> ChildBuilder {
        child.args(&[
            "--inventory-database",
            self.inventory.url(),
            "--payment-database",
            self.payment.url(),
            "--shipping-database",
            self.shipping.url(),
        ])
    }

    /// All three in one process, without an orchestrator.
    pub async fn serve(&self, lab: &Lab) -> anyhow::Result<Child> {
        let child = lab.serve().args(&["--only", "inventory,payment,shipping"]);
        self.give(child).start().await
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

    /// The sums of all books.
    pub async fn books(&self) -> anyhow::Result<Books> {
        let mut connection = PgConnection::connect(self.inventory.url()).await?;
        let (available, reserved, sold) = sqlx::query_as(
            "select sum(available)::bigint, sum(reserved)::bigint, sum(sold)::bigint from stock",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        let mut connection = PgConnection::connect(self.payment.url()).await?;
        let cents = sqlx::query_scalar(
            r#"
            select coalesce(sum(case kind when 'charge' then amount_cents else -amount_cents end), 0)::bigint
            from ledger
            "#,
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        let mut connection = PgConnection::connect(self.shipping.url()).await?;
        let parcels =
            sqlx::query_scalar("select count(*) from shipments where cancelled_at is null")
                .fetch_one(&mut connection)
                .await?;
        connection.close().await?;
        Ok(Books { available, reserved, sold, cents, parcels })
    }

    /// What happened for each order.
    pub async fn effects(&self) -> anyhow::Result<HashMap<Uuid, Effects>> {
        let mut effects: HashMap<Uuid, Effects> = HashMap::new();
        let mut connection = PgConnection::connect(self.payment.url()).await?;
        let payments: Vec<(Uuid, i64, i64)> = sqlx::query_as(
            r#"
            select
                order_id,
                count(*) filter (where kind = 'charge'),
                count(*) filter (where kind = 'refund')
            from ledger
            group by order_id
            "#,
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        for (id, charges, refunds) in payments {
            effects.insert(id, Effects { charges, refunds, ..Effects::default() });
        }
        let mut connection = PgConnection::connect(self.shipping.url()).await?;
        let shipments: Vec<(Uuid, i64, i64)> = sqlx::query_as(
            "select order_id, count(*), count(cancelled_at) from shipments group by order_id",
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        for (id, parcels, cancelled) in shipments {
            let effects = effects.entry(id).or_default();
            (effects.parcels, effects.cancelled) = (parcels, cancelled);
        }
        Ok(effects)
    }
}

/// What all services together hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
    /// Charged and not refunded.
    pub cents: i64,
    /// Booked and not cancelled.
    pub parcels: i64,
}

impl Books {
    /// Checks that nothing was lost and nothing made: everything that there was, is there, sold once or still to be
    /// sold; and for each confirmed order there is its money and its parcel, and for the others nothing.
    pub fn check(&self, lab: &Lab, stock: i64, confirmed: i64) {
        let stock_seen =
            format!("{} available, {} reserved, {} sold", self.available, self.reserved, self.sold);
        lab.check(
            "the stock adds up",
            format!("{} available, 0 reserved, {confirmed} sold", stock - confirmed),
            stock_seen,
            (self.available, self.reserved, self.sold) == (stock - confirmed, 0, confirmed),
        );
        lab.check_eq(
            "the money adds up: cents charged and not refunded",
            confirmed * AMOUNT,
            self.cents,
        );
        lab.check_eq("parcels on their way", confirmed, self.parcels);
    }
}

/// What happened for one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub charges: i64,
    pub refunds: i64,
    pub parcels: i64,
    pub cancelled: i64,
}

impl Effects {
    /// Each happened once and stays, or as often as it was undone, at most once.
    pub fn agree_with(&self, status: &str) -> bool {
        match status {
            "confirmed" => *self == Self { charges: 1, refunds: 0, parcels: 1, cancelled: 0 },
            "cancelled" => {
                self.charges <= 1
                    && self.refunds == self.charges
                    && self.parcels <= 1
                    && self.cancelled == self.parcels
            }
            _ => false,
        }
    }
}

/// An order whose end is decided by what it asks for.
pub fn order(payment_method: &str, country: &str) -> Order {
    serde_json::from_value(order_json(payment_method, country)).unwrap_or_else(|_| unreachable!())
}

/// The same, as a client sends it.
pub fn order_json(payment_method: &str, country: &str) -> Value {
    json!({
        "customer_id": "c-1",
        "items": [{ "sku": SKU, "quantity": 1 }],
        "amount_cents": AMOUNT,
        "payment_method": payment_method,
        "address": { "name": "Ada", "street": "1 Lane", "city": "London", "country": country },
    })
}

/// A client of the orchestrator.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    url: String,
}

impl Api {
    /// Speaks to this child.
    pub fn of(child: &Child) -> anyhow::Result<Self> {
        let http = Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
        Ok(Self { http, url: child.url().to_owned() })
    }

    /// Sends an order with a key, and returns its id, if it was answered at all.
    pub async fn try_order(&self, key: &str, order: &Value) -> anyhow::Result<Uuid> {
        let request = self.http.post(format!("{}/orders", self.url)).header("idempotency-key", key);
        let response = request.json(order).send().await?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status == StatusCode::ACCEPTED, "{status}: {body}");
        let body: Value = serde_json::from_str(&body)?;
        Ok(body["id"].as_str().context("no id")?.parse()?)
    }

    /// Asks with the same key until there is an answer, as a client has to.
    pub async fn order(&self, key: &str, order: &Value) -> anyhow::Result<Uuid> {
        let begun = Instant::now();
        loop {
            match self.try_order(key, order).await {
                Ok(id) => return Ok(id),
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Resumes a stuck order; the status of the answer. On a busy machine it may say 503, and have done it: the
    /// conflict after that says so.
    pub async fn retry(&self, id: Uuid) -> anyhow::Result<StatusCode> {
        let (begun, mut was_away) = (Instant::now(), false);
        loop {
            let request = self.http.post(format!("{}/orders/{id}/retry", self.url));
            match request.send().await?.status() {
                StatusCode::SERVICE_UNAVAILABLE if begun.elapsed() < PATIENCE => was_away = true,
                StatusCode::CONFLICT if was_away => return Ok(StatusCode::ACCEPTED),
                status => return Ok(status),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Any GET that must be answered with 200, asked again until it is.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            match self.try_get(path).await {
                Ok(body) => return Ok(body),
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn try_get(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.http.get(format!("{}/{path}", self.url)).send().await?;
        let status = response.status();
        ensure!(status == StatusCode::OK, "GET /{path}: {status}");
        Ok(response.json().await?)
    }

    /// The order, once it is in one of these states.
    pub async fn wait(&self, id: Uuid, states: &[&str]) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let order = self.get(&format!("orders/{id}")).await?;
            if order["status"].as_str().is_some_and(|status| states.contains(&status)) {
                return Ok(order);
            }
            ensure!(begun.elapsed() < PATIENCE, "waited in vain for {states:?}: {order}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The status of the order of this key, asked of the database, past every proxy.
pub async fn status(
    connection: &mut PgConnection,
    key: &str,
) -> anyhow::Result<Option<(Uuid, String)>> {
    Ok(sqlx::query_as("select id, status from orders where idempotency_key = $1")
        .bind(key)
        .fetch_optional(connection)
        .await?)
}

/// Waits for what will come soon, or never.
pub async fn soon<T>(coming: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, coming).await.context("waited in vain for a message")?
}

/// Waits until a condition gives a value.
pub async fn until<T, W>(what: &str, condition: impl FnMut() -> W) -> anyhow::Result<T>
where
    W: Future<Output = anyhow::Result<Option<T>>>,
{
    within(PATIENCE, what, condition).await
}

/// The same, for what may take longer.
pub async fn within<T, W>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> W,
) -> anyhow::Result<T>
where
    W: Future<Output = anyhow::Result<Option<T>>>,
{
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("waited {patience:?} in vain: {what}")
}

/// The log of an order, as a line for each record: its number, its text, and the milliseconds since the first.
pub async fn timeline(
    database: &Database,
    id: Uuid,
) -> anyhow::Result<Vec<(i32, Value, f64, i64)>> {
    let mut connection = PgConnection::connect(database.url()).await?;
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
