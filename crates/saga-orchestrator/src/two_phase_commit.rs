//! What would the same order be with a two-phase commit? Shorter, and nothing anybody should want: see what is left
//! when its coordinator dies between the phases.

use std::str::FromStr;

use futures_util::future::try_join_all;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::{
    database::{Database, Databases, TIMEOUT, connect},
    error::Error,
    order::Order,
    participants::body,
    payment,
    saga::Call,
    shipping,
    store::{
        calls::{Answer, Asked},
        inventory as stock,
        orders::owner,
        outbox, payment as ledger, shipping as parcels, two_phase,
    },
};

/// The coordinator. It speaks to the databases of all services itself, which is the first thing wrong with it.
pub struct TwoPhaseCommit {
    orders: Database,
    parts: Vec<(&'static str, PgConnectOptions)>,
}

impl TwoPhaseCommit {
    /// Needs all four databases; `None` if one is missing. The error is a malformed URL.
    pub fn new(urls: &Databases) -> Result<Option<Self>, sqlx::Error> {
        let Databases {
            orders: Some(orders),
            inventory: Some(inventory),
            payment: Some(payment),
            shipping: Some(shipping),
        } = urls
        else {
            return Ok(None);
        };
        let parts = [("inventory", inventory), ("payment", payment), ("shipping", shipping)];
        let options = |(name, url): (_, &String)| Ok((name, PgConnectOptions::from_str(url)?));
        let parts = parts.into_iter().map(options).collect::<Result<_, sqlx::Error>>()?;
        Ok(Some(Self { orders: connect(orders)?, parts }))
    }

    // ANCHOR: two_phase
    /// All of the order, or none of it, by the time this returns.
    pub async fn place(&self, id: Uuid, key: &str, order: &Order) -> Result<Uuid, Error> {
        let known = self.orders.within(async |c| {
            let new = outbox::place(c, id, key, order).await?;
            if new { Ok(None) } else { owner(c, key, order).await.map(Some) }
        });
        match known.await? {
            Some((known, true)) => return Ok(known),
            Some((_, false)) => return Err(Error::KeyReused),
            None => {}
        }
        let status = tokio::time::timeout(TIMEOUT * 2, self.commit(id, order)).await;
        let status = status.map_err(|_| Error::DatabaseAway)??;
        self.orders.within(async |c| outbox::set_status(c, id, status).await).await?;
        Ok(id)
    }

    async fn commit(&self, id: Uuid, order: &Order) -> Result<&'static str, Error> {
        let parts = self.parts.iter().map(async |(name, options)| {
            let mut connection = PgConnection::connect_with(options).await?;
            two_phase::begin(&mut connection).await?;
            let answer = work(&mut connection, name, id, order).await?;
            Ok::<_, sqlx::Error>((*name, connection, answer))
        });
        let mut parts = try_join_all(parts).await?;
        if parts.iter().any(|(_, _, answer)| *answer != Answer::Done) {
            for (_, connection, _) in &mut parts {
                two_phase::roll_back(connection).await?;
            }
            return Ok("cancelled");
        }
        for (name, connection, _) in &mut parts {
            two_phase::prepare(connection, id, name).await?;
        }
        // Everybody has voted yes. Whoever dies here takes the verdict along.
        for (name, connection, _) in &mut parts {
            two_phase::commit(connection, id, name).await?;
        }
        Ok("confirmed")
    }
    // ANCHOR_END: two_phase
}

/// What each service would do if it were asked over HTTP.
async fn work(
    connection: &mut PgConnection,
    part: &str,
    id: Uuid,
    order: &Order,
) -> sqlx::Result<Answer> {
    let asked = |call: Call| Asked {
        order_id: id,
        key: format!("{id}.{call}"),
        request: body(call, id, order),
    };
    match part {
        "inventory" => match stock::reserve(connection, &asked(Call::Reserve)).await? {
            Answer::Done => stock::sell(connection, &asked(Call::Sell)).await,
            refused => Ok(refused),
        },
        "payment" => {
            let refusal = payment::refusal(&order.payment_method);
            ledger::charge(connection, &asked(Call::Charge), refusal).await
        }
        _ => {
            let refusal = shipping::refusal(&order.address.country);
            parcels::book(connection, &asked(Call::Book), refusal).await
        }
    }
}
