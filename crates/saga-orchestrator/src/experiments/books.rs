//! Does everything add up in the end? Money, stock and parcels, over the databases of all participants.

use std::collections::HashMap;

use lab::Lab;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::fixture::Participants;
use crate::cases::client::AMOUNT;

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
    /// What the participants have in their databases.
    pub async fn of(parts: &Participants) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(parts.inventory.url()).await?;
        let (available, reserved, sold) = sqlx::query_as(
            r#"
            select
                coalesce(sum(available), 0)::bigint,
                coalesce(sum(reserved), 0)::bigint,
                coalesce(sum(sold), 0)::bigint
            from stock
            "#,
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        let mut connection = PgConnection::connect(parts.payment.url()).await?;
        let cents = sqlx::query_scalar(
            r#"
            select coalesce(
                sum((request ->> 'amount_cents')::bigint * case kind when 'charge' then 1 else -1 end),
                0
            )::bigint
            from effects
            "#,
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        let mut connection = PgConnection::connect(parts.shipping.url()).await?;
        let parcels = sqlx::query_scalar(
            "select coalesce(sum(case kind when 'book' then 1 else -1 end), 0) from effects",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(Self { available, reserved, sold, cents, parcels })
    }

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

/// What happened for each order.
pub async fn effects(parts: &Participants) -> anyhow::Result<HashMap<Uuid, Effects>> {
    let mut effects: HashMap<Uuid, Effects> = HashMap::new();
    for database in [&parts.payment, &parts.shipping] {
        let mut connection = PgConnection::connect(database.url()).await?;
        let seen: Vec<(Uuid, String)> =
            sqlx::query_as("select order_id, kind from effects").fetch_all(&mut connection).await?;
        connection.close().await?;
        for (id, kind) in seen {
            let effects = effects.entry(id).or_default();
            match &*kind {
                "charge" => effects.charges += 1,
                "refund" => effects.refunds += 1,
                "book" => effects.parcels += 1,
                _ => effects.cancelled += 1,
            }
        }
    }
    Ok(effects)
}
