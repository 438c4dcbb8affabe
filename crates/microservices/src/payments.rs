//! Who pays, and only once?
//!
//! Invariant: there is one payment for each key. A service that did not hear the answer asks again.

use serde::{Deserialize, Serialize};
use sqlx::{query_as, query_scalar};
use uuid::Uuid;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::module::Database;
use crate::reach::calls;

/// More than a customer may pay at once.
const LIMIT: i64 = 10_000_000;

/// What is to be paid.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// The key of the order.
    pub key: String,
    /// By whom.
    pub customer: i64,
    /// How much.
    pub cents: i64,
}

/// A row of `payments.payments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Payment {
    /// Ours.
    pub id: Uuid,
    /// How much.
    pub cents: i64,
}

/// The module itself.
#[derive(Clone, Debug)]
pub struct Payments {
    /// With the schema `payments`.
    pub database: Database,
}

impl Payments {
    // ANCHOR: charge
    /// The payment for this key. Where a bank moves the money, it gets the key too, and asking it again moves none.
    pub async fn charge(&self, _: &Call, charge: Charge) -> Result<Payment> {
        // Below zero, a mistake in pricing would pay the customer.
        if !(0..=LIMIT).contains(&charge.cents) {
            return Err(Error::DECLINED);
        }
        // A payment that was there is told of again, and nobody minds.
        let insert = query_as::<_, Payment>(
            r#"
            with paid as (
                insert into payments.payments (id, key, customer, cents)
                values ($1, $2, $3, $4)
                on conflict (key) do update set key = excluded.key
                returning id, customer, cents
            ), told as (
                insert into payments.outbox (event)
                select jsonb_build_object('kind', 'paid', 'of', id)
                from paid
            )
            select id, cents
            from paid
            where customer = $3 and cents = $4
            "#,
        );
        let insert = insert.bind(Uuid::now_v7()).bind(&charge.key).bind(charge.customer);
        let insert = insert.bind(charge.cents);
        let payment = self.database.within(async |it| insert.fetch_optional(it).await).await?;
        // Nobody gets what another customer has paid, or another sum.
        payment.ok_or(Error::KEY_REUSED)
    }
    // ANCHOR_END: charge

    /// Which of these there are.
    pub async fn known(&self, _: &Call, ids: Vec<Uuid>) -> Result<Vec<Uuid>> {
        let find = query_scalar("select id from payments.payments where id = any($1)").bind(ids);
        self.database.within(async |it| find.fetch_all(it).await).await
    }
}

calls! { Payments as "payments":
    charge(Charge) -> Payment;
    known(Vec<Uuid>) -> Vec<Uuid>;
}
