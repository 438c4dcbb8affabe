//! How does an event leave together with the change that it tells of, and how does it count once where it arrives? Both
//! are rows, written by the same transaction.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// A relay has this long to send what it has taken. Then another may send it too, which does no harm: the inbox knows
/// the second one.
const TAKEN_FOR: Duration = Duration::from_millis(500);

/// The event leaves when the transaction commits, or never.
pub async fn put(connection: &mut PgConnection, event: &Value) -> sqlx::Result<()> {
    sqlx::query("insert into outbox (event) values ($1)").bind(event).execute(connection).await?;
    Ok(())
}

// ANCHOR: outbox_sql
/// The oldest events that no other relay has taken; and if there are none, when the next one will be free. They are
/// deleted only when they were sent.
pub async fn take(
    connection: &mut PgConnection,
) -> sqlx::Result<(Vec<(i64, Value)>, Option<Duration>)> {
    let taken: Vec<_> = sqlx::query_as(
        r#"
        update outbox
        set due_at = now() + $1 * interval '1 millisecond'
        where id in (
            select id
            from outbox
            where due_at <= now()
            order by id
            limit 100
            for update skip locked
        )
        returning id, event
        "#,
    )
    .bind(TAKEN_FOR.as_secs_f64() * 1e3)
    .fetch_all(&mut *connection)
    .await?;
    if !taken.is_empty() {
        return Ok((taken, None));
    }
    let seconds: Option<f64> =
        sqlx::query_scalar("select extract(epoch from min(due_at) - now())::float8 from outbox")
            .fetch_one(connection)
            .await?;
    Ok((taken, seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 60.0)))))
}

/// They were sent.
pub async fn delete(connection: &mut PgConnection, ids: &[i64]) -> sqlx::Result<()> {
    sqlx::query("delete from outbox where id = any ($1)").bind(ids).execute(connection).await?;
    Ok(())
}

/// Notes that an event is being dealt with; whether it is the first time.
pub async fn receive(connection: &mut PgConnection, event_id: Uuid) -> sqlx::Result<bool> {
    let new = sqlx::query("insert into inbox (event_id) values ($1) on conflict do nothing")
        .bind(event_id)
        .execute(connection)
        .await?;
    Ok(new.rows_affected() > 0)
}

/// Forgets events that are too old to come again; how many. A week is longer than any broker's outage.
pub async fn forget(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let forgotten = sqlx::query(
        r#"
        delete from inbox
        where event_id in (
            select event_id
            from inbox
            where at < now() - interval '7 days'
            limit 1000
        )
        "#,
    )
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected())
}
// ANCHOR_END: outbox_sql
