//! What does a client's request do to the orders, and what does it read of them?

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Store, by_order, records};
use crate::{
    error::Error,
    log::{Log, Status},
    order::{Order, stored},
};

pub(crate) const INSERT: &str = r#"
    with new as (
        insert into orders (id, idempotency_key, request, records)
        values ($1, $2, $3, 1)
        on conflict (idempotency_key) do nothing
        returning id
    )
    insert into saga_log (order_id, number, record, fence)
    select id, 1, $4, 0
    from new
"#;

impl Store {
    /// A new order with the first record of its log, or the order that was made with this key. An error if the key
    /// was used for another request.
    pub async fn insert(&self, id: Uuid, key: &str, order: &Order) -> Result<Uuid, Error> {
        let row = self
            .database
            .within(async |connection| {
                let new = insert(connection, id, key, order).await?;
                if new { Ok(None) } else { owner(connection, key, order).await.map(Some) }
            })
            .await?;
        match row {
            None | Some((_, true)) => Ok(row.map_or(id, |(known, _)| known)),
            Some((_, false)) => Err(Error::KeyReused),
        }
    }

    /// How an order stands, and its log.
    pub async fn find(&self, id: Uuid) -> Result<Option<(Status, Log)>, Error> {
        let (status, rows) = self
            .database
            .within(async |connection| {
                let status: Option<String> =
                    sqlx::query_scalar("select status from orders where id = $1")
                        .bind(id)
                        .fetch_optional(&mut *connection)
                        .await?;
                let rows =
                    if status.is_some() { records(connection, &[id]).await? } else { Vec::new() };
                Ok((status, rows))
            })
            .await?;
        let Some(status) = status else { return Ok(None) };
        let log = by_order(rows).remove(&id).unwrap_or_default();
        Ok(Some((stored(status.into())?, log)))
    }

    /// Up to so many orders of this status, or of any, after this one; in the order in which they came.
    pub async fn page(
        &self,
        status: Option<Status>,
        after: Uuid,
        limit: i64,
    ) -> Result<Vec<(Uuid, Status, Log)>, Error> {
        let (orders, rows) = self
            .database
            .within(async |connection| {
                let orders: Vec<(Uuid, String)> = sqlx::query_as(
                    r#"
                    select id, status
                    from orders
                    where ($1::text is null or status = $1) and id > $2
                    order by id
                    limit $3
                    "#,
                )
                .bind(status.map(Status::name))
                .bind(after)
                .bind(limit)
                .fetch_all(&mut *connection)
                .await?;
                let ids: Vec<_> = orders.iter().map(|order| order.0).collect();
                let rows = records(connection, &ids).await?;
                Ok((orders, rows))
            })
            .await?;
        let mut logs = by_order(rows);
        let whole = |(id, status): (Uuid, String)| {
            Ok((id, stored(status.into())?, logs.remove(&id).unwrap_or_default()))
        };
        orders.into_iter().map(whole).collect()
    }

    /// Lets a stuck order go on; whether it was stuck. The token rises, so that nobody who held it before goes on
    /// beside whoever claims it now.
    pub async fn resume(&self, id: Uuid, status: Status) -> Result<bool, Error> {
        let resumed = self
            .database
            .within(async |connection| {
                sqlx::query(
                    r#"
                    with mine as (
                        update orders
                        set
                            records = records + 1,
                            fence = fence + 1,
                            status = $2,
                            leased = false,
                            due_at = now()
                        where id = $1 and status = 'stuck'
                        returning id, records, fence
                    )
                    insert into saga_log (order_id, number, record, fence)
                    select id, records, '{"kind": "resumed"}', fence
                    from mine
                    "#,
                )
                .bind(id)
                .bind(status.name())
                .execute(connection)
                .await
            })
            .await?;
        Ok(resumed.rows_affected() > 0)
    }
}

/// Inserts an order that nobody has claimed; whether the key was free.
pub async fn insert(
    connection: &mut PgConnection,
    id: Uuid,
    key: &str,
    order: &Order,
) -> sqlx::Result<bool> {
    let written = sqlx::query(INSERT)
        .bind(id)
        .bind(key)
        .bind(Json(order))
        .bind(Json(Log::FIRST))
        .execute(connection)
        .await?;
    Ok(written.rows_affected() > 0)
}

/// The order of this key, and whether it was made by the same request.
pub async fn owner(
    connection: &mut PgConnection,
    key: &str,
    order: &Order,
) -> sqlx::Result<(Uuid, bool)> {
    sqlx::query_as("select id, request = $2 from orders where idempotency_key = $1")
        .bind(key)
        .bind(Json(order))
        .fetch_one(connection)
        .await
}
