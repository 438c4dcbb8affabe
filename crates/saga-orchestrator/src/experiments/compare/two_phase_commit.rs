//! What would the same order be with a two-phase commit? Shorter, and nothing anybody should want: see what is left
//! when its coordinator dies between the phases.

use std::{str::FromStr, time::Duration};

use anyhow::bail;
use futures_util::future::try_join_all;
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use super::{Parts, asked, place, set_status};
use crate::{
    error::Error,
    order::Order,
    participant::perform,
    saga::{Call, Participant},
    store::{Database, calls::Answer, orders::owner},
};

/// For both phases.
const TIMEOUT: Duration = Duration::from_secs(6);

/// The coordinator. It speaks to the databases of all services itself, which is the first thing wrong with it.
pub struct TwoPhaseCommit {
    orders: Database,
    parts: Vec<(Participant, PgConnectOptions)>,
}

impl TwoPhaseCommit {
    /// Needs all four databases.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let (Some(store), [Some(inventory), Some(payment), Some(shipping)]) =
            (parts.store, parts.urls)
        else {
            bail!("two-phase commit needs all four databases in one process");
        };
        let options = |(part, url): (_, String)| Ok((part, PgConnectOptions::from_str(&url)?));
        let parts = Participant::ALL.into_iter().zip([inventory, payment, shipping]);
        let parts = parts.map(options).collect::<Result<_, sqlx::Error>>()?;
        Ok(Self { orders: store.database, parts })
    }

    // ANCHOR: two_phase
    /// All of the order, or none of it, by the time this returns.
    pub async fn place(&self, id: Uuid, key: &str, order: &Order) -> Result<Uuid, Error> {
        let known = self.orders.within(async |c| {
            if place(c, id, key, order).await? { Ok(None) } else { owner(c, key, order).await }
        });
        match known.await? {
            Some((known, true)) => return Ok(known),
            Some((_, false)) => return Err(Error::KeyReused),
            None => {}
        }
        let status = tokio::time::timeout(TIMEOUT, self.commit(id, order)).await;
        let status = status.map_err(|_| Error::DatabaseAway)??;
        self.orders.within(async |c| set_status(c, id, status).await).await?;
        Ok(id)
    }

    async fn commit(&self, id: Uuid, order: &Order) -> Result<&'static str, Error> {
        let parts = self.parts.iter().map(async |(part, options)| {
            let mut connection = PgConnection::connect_with(options).await?;
            // By hand, since `prepare transaction` ends it in a way that sqlx does not know.
            run(&mut connection, "begin".to_owned()).await?;
            let answer = work(&mut connection, *part, id, order).await?;
            Ok::<_, sqlx::Error>((*part, connection, answer))
        });
        let mut parts = try_join_all(parts).await?;
        if parts.iter().any(|(_, _, answer)| *answer != Answer::Done) {
            for (_, connection, _) in &mut parts {
                run(connection, "rollback".to_owned()).await?;
            }
            return Ok("cancelled");
        }
        // The vote: from here on a database can neither refuse nor forget, and keeps every lock until it hears how
        // the others voted.
        for (part, connection, _) in &mut parts {
            run(connection, format!("prepare transaction '{id}.{part}'")).await?;
        }
        // All have voted yes. If the coordinator dies here, nobody knows the verdict.
        for (part, connection, _) in &mut parts {
            run(connection, format!("commit prepared '{id}.{part}'")).await?;
        }
        Ok("confirmed")
    }
    // ANCHOR_END: two_phase
}

/// What each service would do if it were asked over HTTP.
async fn work(
    connection: &mut PgConnection,
    part: Participant,
    id: Uuid,
    order: &Order,
) -> sqlx::Result<Answer> {
    let calls: &[Call] = match part {
        Participant::Inventory => &[Call::Reserve, Call::Sell],
        Participant::Payment => &[Call::Charge],
        Participant::Shipping => &[Call::Book],
    };
    for &call in calls {
        match perform(connection, call, &asked(call, id, order)).await? {
            Answer::Done => {}
            refused => return Ok(refused),
        }
    }
    Ok(Answer::Done)
}

/// Nothing in these statements can be bound. They are made of a UUID and of names of ours.
async fn run(connection: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}
