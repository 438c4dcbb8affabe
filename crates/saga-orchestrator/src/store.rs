//! What does the orchestrator keep? Orders and the saga log. Every SQL statement of the answer is in this module.
//!
//! Invariant: an orchestrator that works on an order holds its newest fencing token. A write with an older one writes
//! nothing.

pub mod calls;
pub mod inventory;
pub mod orders;

use std::{collections::HashMap, time::Duration};

use edge::database::Limits;
use serde_json::Value;
use sqlx::{PgConnection, migrate::Migrator, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    error::Error,
    log::{Log, Status},
    order::Order,
    saga::Record,
};

/// The orchestrator's schema.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/orchestrator");

const LIMITS: Limits = Limits {
    connections: 16,
    // For one call. Waiting for a hot row counts too.
    timeout: Duration::from_secs(3),
    // The statements of a transaction follow each other at once.
    pause: Duration::from_millis(500),
};

/// One of the databases: the orchestrator's, or a participant's.
pub type Database = edge::database::Database<Error>;

/// Connects when it is first asked something, so it need not be there yet. The error is a malformed URL.
pub fn connect(url: &str) -> Result<Database, sqlx::Error> {
    Database::new(url, LIMITS)
}

/// The orchestrator's database.
#[derive(Clone, Debug)]
pub struct Store {
    /// Where the orders are.
    pub database: Database,
}

/// An order that this process may work on, until the lease ends.
#[derive(Debug)]
pub struct Claim {
    /// Which.
    pub id: Uuid,
    /// What was ordered; nothing if that cannot be read, and then the log is damaged.
    pub order: Option<Order>,
    /// Every write has to bear it.
    pub fence: i64,
    /// What has happened so far.
    pub log: Log,
}

/// What becomes of the lease with a write.
#[derive(Clone, Copy, Debug)]
pub enum Lease {
    /// The writer goes on, with a lease that is at least half as long as this.
    Keep(Duration),
    /// Anybody may go on after this time.
    Release(Duration),
    /// There is nothing more to do.
    End,
}

type LogRow = (Uuid, Value, OffsetDateTime);

// ANCHOR: append_sql
pub(crate) const APPEND: &str = r#"
    with mine as (
        update orders
        set
            records = records + cardinality($3),
            status = $4,
            leased = $5,
            fence = fence + (not $5)::integer,
            due_at = case
                when not $5 then now() + $6 * interval '1 millisecond'
                when due_at > now() + $6 * interval '0.5 millisecond' then due_at
                else now() + $6 * interval '1 millisecond'
            end
        where id = $1 and fence = $2
        returning id, records
    ), written as (
        insert into saga_log (order_id, number, record, fence)
        select mine.id, mine.records - cardinality($3) + new.number, new.record, $2
        from mine, unnest($3) with ordinality as new (record, number)
    )
    select exists (select from mine)
"#;

impl Store {
    /// Writes the records and renews, releases or ends the lease: all of it, or nothing if another orchestrator has
    /// claimed the order since. Returns whether it was written. If not, this one may do nothing more for the order.
    ///
    /// A release uses up the token, so that it cannot be released twice.
    pub async fn append(
        &self,
        id: Uuid,
        fence: i64,
        records: &[Record],
        status: Status,
        lease: Lease,
    ) -> Result<bool, Error> {
        let (leased, time) = match lease {
            Lease::Keep(time) => (true, Some(time)),
            Lease::Release(time) => (false, Some(time)),
            Lease::End => (false, None),
        };
        let append = self.database.within(async |connection| {
            sqlx::query_scalar(APPEND)
                .bind(id)
                .bind(fence)
                .bind(records.iter().map(Json).collect::<Vec<_>>())
                .bind(status.to_string())
                .bind(leased)
                .bind(time.map(|time| time.as_secs_f64() * 1e3))
                .fetch_one(connection)
                .await
        });
        let written: bool = append.await?;
        if !written {
            tracing::info!(%id, fence, "fenced off: another orchestrator has claimed this order");
        }
        Ok(written)
    }
}
// ANCHOR_END: append_sql

// ANCHOR: claim_sql
const CLAIM: &str = r#"
    with due as (
        select id, leased
        from orders
        where due_at <= now()
        order by due_at
        limit $1
        for update skip locked
    ), claimed as (
        update orders
        set
            fence = fence + 1,
            leased = true,
            due_at = now() + $2 * interval '1 millisecond',
            records = records + due.leased::integer
        from due
        where orders.id = due.id
        returning orders.id, request, fence, records, due.leased as taken_over
    ), noted as (
        insert into saga_log (order_id, number, record, fence)
        select id, records, '{"kind": "taken_over"}', fence
        from claimed
        where taken_over
    )
    select id, request, fence
    from claimed
"#;

impl Store {
    /// Claims up to so many orders that are due: new ones, those whose pause is over, and those whose owner
    /// let its lease run out, which the log then says. If there are none, also how long until the next one is due.
    pub async fn claim(
        &self,
        limit: usize,
        lease: Duration,
    ) -> Result<(Vec<Claim>, Option<Duration>), Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database
            .within(async |connection| {
                let due: Vec<(Uuid, Value, i64)> = sqlx::query_as(CLAIM)
                    .bind(limit)
                    .bind(lease.as_secs_f64() * 1e3)
                    .fetch_all(&mut *connection)
                    .await?;
                if due.is_empty() {
                    return Ok((Vec::new(), next_due(connection).await?));
                }
                // A statement of its own, so that it sees all that was written before the claim.
                let ids: Vec<_> = due.iter().map(|due| due.0).collect();
                let mut logs = logs(connection, &ids).await?;
                let claim = |(id, request, fence)| {
                    let mut log = logs.remove(&id).unwrap_or_default();
                    // Such an order is parked like one with a damaged log, and holds up no other.
                    let unreadable = |error| log.damage = Some(format!("the order: {error}"));
                    let order = serde_json::from_value(request).map_err(unreadable).ok();
                    Claim { id, order, fence, log }
                };
                Ok((due.into_iter().map(claim).collect(), None))
            })
            .await
    }
}
// ANCHOR_END: claim_sql

/// The logs of these orders.
async fn logs(connection: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, Log>> {
    let rows: Vec<LogRow> = sqlx::query_as(
        r#"
        select order_id, record, at
        from saga_log
        where order_id = any ($1)
        order by order_id, number
        "#,
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let log_of = |rows: &[LogRow]| Log::read(rows.iter().map(|row| (row.1.clone(), row.2)));
    Ok(rows.chunk_by(|one, next| one.0 == next.0).map(|rows| (rows[0].0, log_of(rows))).collect())
}

/// How long until the next order is due.
async fn next_due(connection: &mut PgConnection) -> sqlx::Result<Option<Duration>> {
    let seconds: Option<f64> =
        sqlx::query_scalar("select extract(epoch from min(due_at) - now())::float8 from orders")
            .fetch_one(connection)
            .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0))))
}
