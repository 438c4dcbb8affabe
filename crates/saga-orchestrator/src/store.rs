//! What does the orchestrator keep? Orders and the saga log. Every SQL statement of the crate is in this module.
//!
//! Invariant: whoever works on an order holds its newest fencing token; a write with an older one writes nothing.

pub mod calls;
pub mod inventory;
pub mod orders;
pub mod outbox;
pub mod payment;
pub mod shipping;
pub mod two_phase;

use std::{collections::HashMap, time::Duration};

use serde_json::Value;
use sqlx::{PgConnection, migrate::Migrator, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    database::Database,
    error::Error,
    log::{Log, Status},
    order::{Order, stored},
    saga::Record,
};

/// The orchestrator's schema.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/orchestrator");

/// The orchestrator's database.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
}

/// An order that this process may work on, until the lease ends.
#[derive(Debug)]
pub struct Claim {
    /// Which.
    pub id: Uuid,
    /// What was ordered.
    pub order: Order,
    /// Every write has to bear it.
    pub fence: i64,
    /// What has happened so far.
    pub log: Log,
    /// The database's time when it was claimed. Its clock alone is asked.
    pub now: OffsetDateTime,
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

/// What a look for work has brought.
#[derive(Debug)]
pub enum Claims {
    /// These, at least one.
    Some(Vec<Claim>),
    /// Nothing, and nothing will be due before this time has passed, of what there is now.
    None(Option<Duration>),
}

type Due = (Uuid, Value, i64, OffsetDateTime);
type LogRow = (Uuid, Value, OffsetDateTime);

// ANCHOR: append_sql
pub(crate) const APPEND: &str = r#"
    with mine as (
        update orders
        set
            records = records + cardinality($3),
            status = $4,
            leased = $5,
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
    /// Writes the records and renews, releases or ends the lease: all of it, or nothing if somebody else has
    /// claimed the order since. Whether it was written.
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
        self.database
            .within(async |connection| {
                sqlx::query_scalar(APPEND)
                    .bind(id)
                    .bind(fence)
                    .bind(records.iter().map(Json).collect::<Vec<_>>())
                    .bind(status.name())
                    .bind(leased)
                    .bind(time.map(|time| time.as_secs_f64() * 1e3))
                    .fetch_one(connection)
                    .await
            })
            .await
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
    select id, request, fence, now()
    from claimed
"#;

impl Store {
    /// Claims up to so many orders that are due: new ones, those whose pause is over, and those whose owner
    /// let its lease run out, which the log then says. If there are none, when the next one will be due.
    pub async fn claim(&self, limit: usize, lease: Duration) -> Result<Claims, Error> {
        self.database
            .within(async |connection| {
                let due: Vec<Due> = sqlx::query_as(CLAIM)
                    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                    .bind(lease.as_secs_f64() * 1e3)
                    .fetch_all(&mut *connection)
                    .await?;
                if due.is_empty() {
                    return Ok((due, Vec::new(), next_due(connection).await?));
                }
                // A statement of its own, so that it sees all that was written before the claim.
                let ids: Vec<_> = due.iter().map(|due| due.0).collect();
                let rows = records(connection, &ids).await?;
                Ok((due, rows, None))
            })
            .await
            .map(|(due, rows, next)| match claims(due, rows) {
                claims if claims.is_empty() => Claims::None(next),
                claims => Claims::Some(claims),
            })
    }
}
// ANCHOR_END: claim_sql

impl Store {
    /// In this database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// The database itself, for what choreography keeps beside the orders.
    pub fn database(&self) -> &Database {
        &self.database
    }
}

/// The logs of these orders.
async fn records(connection: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<LogRow>> {
    sqlx::query_as(
        r#"
        select order_id, record, at
        from saga_log
        where order_id = any ($1)
        order by order_id, number
        "#,
    )
    .bind(ids)
    .fetch_all(connection)
    .await
}

/// How long until the next order is due.
async fn next_due(connection: &mut PgConnection) -> sqlx::Result<Option<Duration>> {
    let seconds: Option<f64> =
        sqlx::query_scalar("select extract(epoch from min(due_at) - now())::float8 from orders")
            .fetch_one(connection)
            .await?;
    Ok(seconds
        .map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

fn by_order(rows: Vec<LogRow>) -> HashMap<Uuid, Log> {
    let mut records: HashMap<Uuid, Vec<_>> = HashMap::new();
    for (id, record, at) in rows {
        records.entry(id).or_default().push((record, at));
    }
    records.into_iter().map(|(id, records)| (id, Log::read(records))).collect()
}

/// An order that cannot be read is left to its lease, and holds up none of those that were claimed with it.
fn claims(due: Vec<Due>, rows: Vec<LogRow>) -> Vec<Claim> {
    let mut logs = by_order(rows);
    due.into_iter()
        .filter_map(|(id, order, fence, now)| {
            let log = logs.remove(&id).unwrap_or_default();
            match stored(order) {
                Ok(order) => Some(Claim { id, order, fence, log, now }),
                Err(error) => {
                    tracing::error!(%id, cause = ?error, "an order that no code of ours wrote");
                    None
                }
            }
        })
        .collect()
}
