//! What was ordered? Each order needs the catalogue, a price and a payment, and is placed once for each key.
//!
//! Invariant: an order and the event that tells of it are written in one statement. So there is never one without the other.

use axum::http::HeaderMap;
use edge::{Mistakes, header::only};
use serde::{Deserialize, Serialize};
use sqlx::{query, query_as};
use time::{OffsetDateTime, serde::rfc3339};
use uuid::Uuid;

use crate::call::Call;
use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::module::{Database, Event, Numbered};
use crate::payments::{Charge, Payments};
use crate::pricing::{Pricing, Question};
use crate::reach::{Reach, calls};

/// See draft-ietf-httpapi-idempotency-key-header.
const KEY: &str = "idempotency-key";

/// A statement that reads orders.
macro_rules! select {
    ($which:literal) => {
        concat!(
            "select id, customer, product, quantity, cents, payment, created_at from orders.orders ",
            $which
        )
    };
}

/// What a client orders, under the client's name for this request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `customer`, `product` and `quantity`")]
pub struct NewOrder {
    /// The same for each attempt. A client sends it as a header.
    #[serde(default)]
    pub key: String,
    /// By whom.
    pub customer: i64,
    /// Of what.
    pub product: i64,
    /// From 1 to 100.
    pub quantity: i64,
}

impl NewOrder {
    /// Checks it. Without a key, a client that has heard no answer would buy twice. So a key is required.
    pub fn parse(self, headers: &HeaderMap) -> Result<Self> {
        let is_key = |key: &&str| (1..=255).contains(&key.len()) && !key.contains([' ', '\t', ',']);
        let key = only(headers, KEY).filter(is_key).ok_or(Error::BAD_KEY)?.to_owned();
        let mut mistakes = Mistakes::default();
        let customer = (self.customer > 0).then_some(()).ok_or("must be a number from 1");
        mistakes.note("customer", customer);
        let quantity = (1..=100).contains(&self.quantity).then_some(());
        mistakes.note("quantity", quantity.ok_or("must be from 1 to 100"));
        mistakes.finish(Some(Self { key, ..self })).map_err(Error::Invalid)
    }
}

/// A row of `orders.orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Order {
    /// Ours.
    pub id: Uuid,
    /// By whom.
    pub customer: i64,
    /// Of what.
    pub product: i64,
    /// How many of it.
    pub quantity: i64,
    /// For all of it.
    pub cents: i64,
    /// How it was paid.
    pub payment: Uuid,
    /// When.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

/// An order with what other modules know about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Line {
    /// The order.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub order: Order,
    /// What the product is called. Nothing if the catalogue does not know it, or has not told yet.
    pub name: Option<String>,
    /// Whether the payment is known.
    pub paid: bool,
}

/// The module itself.
#[derive(Clone, Debug)]
pub struct Orders {
    /// With the schema `orders`.
    pub database: Database,
    /// What is sold.
    pub catalogue: Reach<Catalogue>,
    /// What it costs.
    pub pricing: Reach<Pricing>,
    /// Who pays.
    pub payments: Reach<Payments>,
}

impl Orders {
    // ANCHOR: place
    /// Places an order; for a key that came before, the order of then. Nothing is undone: if we die after the payment, the
    /// client asks again with the key, and the payment is there.
    pub async fn place(&self, call: &Call, new: NewOrder) -> Result<Order> {
        if let Some(order) = self.placed_before(&new).await? {
            return Ok(order);
        }
        let product = self.catalogue.product(call, new.product).await?;
        let question = Question { cents: product.cents, quantity: new.quantity };
        let quote = self.pricing.quote(call, question).await?;
        let charge = Charge { key: new.key.clone(), customer: new.customer, cents: quote.cents };
        let payment = self.payments.charge(call, charge).await?;
        let insert = query_as::<_, Order>(
            r#"
            with placed as (
                insert into orders.orders (id, key, customer, product, quantity, cents, payment)
                values ($1, $2, $3, $4, $5, $6, $7)
                on conflict (key) do nothing
                returning id, customer, product, quantity, cents, payment, created_at
            ), told as (
                insert into orders.outbox (event)
                select jsonb_build_object('kind', 'order_placed', 'of', jsonb_build_array(id, customer, product))
                from placed
            )
            select id, customer, product, quantity, cents, payment, created_at
            from placed
            "#,
        );
        let insert = insert.bind(Uuid::now_v7()).bind(&new.key).bind(new.customer);
        let insert = insert.bind(new.product).bind(new.quantity).bind(quote.cents).bind(payment.id);
        let placed = self.database.within(async |it| insert.fetch_optional(it).await).await?;
        match placed {
            Some(order) => Ok(order),
            // Somebody else had the same key at the same moment.
            None => self.placed_before(&new).await?.ok_or(Error::NOT_FOUND),
        }
    }
    // ANCHOR_END: place

    async fn placed_before(&self, new: &NewOrder) -> Result<Option<Order>> {
        let find = query_as::<_, Order>(select!("where key = $1")).bind(&new.key);
        let order = self.database.within(async |it| find.fetch_optional(it).await).await?;
        let same = |it: &Order| {
            (it.customer, it.product, it.quantity) == (new.customer, new.product, new.quantity)
        };
        if order.as_ref().is_none_or(same) { Ok(order) } else { Err(Error::KEY_REUSED) }
    }

    /// One order.
    pub async fn find(&self, _: &Call, id: Uuid) -> Result<Order> {
        let find = query_as(select!("where id = $1")).bind(id);
        let order = self.database.within(async |it| find.fetch_optional(it).await).await?;
        order.ok_or(Error::NOT_FOUND)
    }

    /// A customer's last hundred, the newest first.
    pub async fn of(&self, _: &Call, customer: i64) -> Result<Vec<Order>> {
        let last = select!("where customer = $1 order by created_at desc, id limit 100");
        let find = query_as(last).bind(customer);
        self.database.within(async |it| find.fetch_all(it).await).await
    }

    // ANCHOR: copies
    /// The same with what others have told us: no other module is asked, and what it says may be old.
    pub async fn lines(&self, _: &Call, customer: i64) -> Result<Vec<Line>> {
        let find = query_as(
            r#"
            select o.id, o.customer, o.product, o.quantity, o.cents, o.payment, o.created_at,
                n.name, r.payment is not null as paid
            from orders.orders as o
            left join orders.product_names as n on n.product = o.product
            left join orders.receipts as r on r.payment = o.payment
            where customer = $1
            order by created_at desc, o.id
            limit 100
            "#,
        );
        let find = find.bind(customer);
        self.database.within(async |it| find.fetch_all(it).await).await
    }

    /// Keeps copies of what others tell. An event may come twice, or after a later one: both change nothing.
    pub async fn hear(&self, Numbered { number, event }: &Numbered) -> Result<()> {
        let rename = r#"
            insert into orders.product_names (product, name, version)
            values ($1, $2, $3)
            on conflict (product) do update set name = $2, version = $3
            where product_names.version < $3
        "#;
        let paid = "insert into orders.receipts (payment) values ($1) on conflict do nothing";
        let change = match event {
            Event::ProductChanged(product, name) => {
                query(rename).bind(product).bind(name).bind(number)
            }
            Event::Paid(payment) => query(paid).bind(payment),
            Event::OrderPlaced(..) => return Ok(()),
        };
        self.database.execute(change).await.map(drop)
    }
    // ANCHOR_END: copies
}

calls! { Orders as "orders":
    place(NewOrder) -> Order;
    find(Uuid) -> Order;
    of(i64) -> Vec<Order>;
    lines(i64) -> Vec<Line>;
}
