//! What does a client's request do to the orders, and what does it read of them?

use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Store, logs};
use crate::{
    error::Error,
    log::{Log, Status},
    order::Order,
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

/// An order as it stands.
#[derive(Debug)]
pub struct Standing {
    /// Which.
    pub id: Uuid,
    /// Its state.
    pub status: Status,
    /// The token that was given out last.
    pub fence: i64,
    /// What has happened so far.
    pub log: Log,
}

impl Store {
    /// A new order with the first record of its log, or the order that was made with this key. An error if the key
    /// was used for another request.
    pub async fn insert(&self, key: &str, order: &Order) -> Result<Uuid, Error> {
        let id = Uuid::now_v7();
        let known = self.database.within(async |connection| {
            let new = sqlx::query(INSERT)
                .bind(id)
                .bind(key)
                .bind(Json(order))
                .bind(Json(Log::FIRST))
                .execute(&mut *connection)
                .await?;
            if new.rows_affected() > 0 { Ok(None) } else { owner(connection, key, order).await }
        });
        match known.await? {
            None => Ok(id),
            Some((known, true)) => Ok(known),
            Some((_, false)) => Err(Error::KeyReused),
        }
    }

    /// How an order stands.
    pub async fn find(&self, id: Uuid) -> Result<Standing, Error> {
        let found = self.database.within(async |connection| {
            let select = "select to_jsonb(status), fence from orders where id = $1";
            let order: Option<(Json<Status>, i64)> =
                sqlx::query_as(select).bind(id).fetch_optional(&mut *connection).await?;
            Ok((order, logs(connection, &[id]).await?.remove(&id).unwrap_or_default()))
        });
        let (order, log) = found.await?;
        let (Json(status), fence) = order.ok_or(Error::NotFound)?;
        Ok(Standing { id, status, fence, log })
    }

    /// The newest hundred orders of this status, or of any.
    pub async fn newest(&self, status: Option<Status>) -> Result<Vec<Value>, Error> {
        let newest = self.database.within(async |connection| {
            sqlx::query_scalar(
                r#"
                select jsonb_build_object('id', id, 'status', status)
                from orders
                where $1::text is null or status = $1
                order by id desc
                limit 100
                "#,
            )
            .bind(status.map(|status| status.to_string()))
            .fetch_all(connection)
            .await
        });
        newest.await
    }
}

/// The order of this key, and whether it was made by the same request.
pub(crate) async fn owner(
    connection: &mut PgConnection,
    key: &str,
    order: &Order,
) -> sqlx::Result<Option<(Uuid, bool)>> {
    sqlx::query_as("select id, request = $2 from orders where idempotency_key = $1")
        .bind(key)
        .bind(Json(order))
        .fetch_optional(connection)
        .await
}
