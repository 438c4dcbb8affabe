//! How does an event leave together with the change that it tells of? It is a row, written by the same transaction.

use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::order::Order;

/// The event leaves when the transaction commits, or never.
pub async fn put(connection: &mut PgConnection, event: &Value) -> sqlx::Result<()> {
    sqlx::query("insert into outbox (event) values ($1)").bind(event).execute(connection).await?;
    Ok(())
}

// ANCHOR: outbox_sql
/// The oldest events. They are deleted only when they were sent: two processes may send one twice, and none never.
pub async fn take(connection: &mut PgConnection) -> sqlx::Result<Vec<(i64, Value)>> {
    sqlx::query_as(
        r#"
        select id, event
        from outbox
        order by id
        limit 100
        "#,
    )
    .fetch_all(connection)
    .await
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
// ANCHOR_END: outbox_sql

/// An order that no orchestrator looks after; whether the key was free.
pub async fn place(
    connection: &mut PgConnection,
    id: Uuid,
    key: &str,
    order: &Order,
) -> sqlx::Result<bool> {
    let new = sqlx::query(
        r#"
        insert into orders (id, idempotency_key, request, records, due_at)
        values ($1, $2, $3, 0, null)
        on conflict (idempotency_key) do nothing
        "#,
    )
    .bind(id)
    .bind(key)
    .bind(Json(order))
    .execute(connection)
    .await?;
    Ok(new.rows_affected() > 0)
}

/// What the order's own service has heard of it.
pub async fn set_status(connection: &mut PgConnection, id: Uuid, status: &str) -> sqlx::Result<()> {
    sqlx::query(
        r#"
        update orders
        set status = $2
        where id = $1 and status in ('pending', 'cancelling')
        "#,
    )
    .bind(id)
    .bind(status)
    .execute(connection)
    .await?;
    Ok(())
}
