//! What does the payment service keep? A ledger, and what it answered.

use sqlx::{PgConnection, migrate::Migrator};
use time::OffsetDateTime;
use uuid::Uuid;

use super::calls::{Answer, Asked, replay};

/// The schema.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/payment");

// ANCHOR: charge_sql
pub(crate) const CHARGE: &str = r#"
    with call as (
        insert into calls (order_id, action_key, request, refusal)
        values ($1, $2, $3, $4)
        on conflict (order_id) do nothing
        returning order_id, request, refusal
    ), effect as (
        insert into ledger (order_id, kind, amount_cents)
        select order_id, 'charge', (request ->> 'amount_cents')::bigint
        from call
        where refusal is null
    )
    select refusal from call
"#;

/// Takes the money, unless there is a reason not to.
pub async fn charge(
    connection: &mut PgConnection,
    asked: &Asked,
    refusal: Option<&str>,
) -> sqlx::Result<Answer> {
    let first: Option<Option<String>> = sqlx::query_scalar(CHARGE)
        .bind(asked.order_id)
        .bind(&asked.key)
        .bind(&asked.request)
        .bind(refusal)
        .fetch_optional(&mut *connection)
        .await?;
    match first {
        Some(refusal) => Ok(refusal.into()),
        None => replay(connection, asked).await,
    }
}

/// Gives back what was taken, which may be nothing. It cannot be refused, and leaves a mark that no later
/// charge gets past.
pub async fn refund(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    sqlx::query(
        r#"
        with call as (
            insert into calls (order_id, undo_key)
            values ($1, $2)
            on conflict (order_id) do update set undo_key = excluded.undo_key
                where calls.undo_key is null
            returning order_id, request, action_key is not null and refusal is null as was_done
        )
        insert into ledger (order_id, kind, amount_cents)
        select order_id, 'refund', (request ->> 'amount_cents')::bigint
        from call
        where was_done
        "#,
    )
    .bind(asked.order_id)
    .bind(&asked.key)
    .execute(connection)
    .await?;
    Ok(Answer::Done)
}
// ANCHOR_END: charge_sql

/// A line of the ledger.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Entry {
    /// `charge` or `refund`.
    pub kind: String,
    /// How much.
    pub amount_cents: i64,
    /// When.
    pub at: OffsetDateTime,
}

/// The lines of an order.
pub async fn entries(connection: &mut PgConnection, order_id: Uuid) -> sqlx::Result<Vec<Entry>> {
    sqlx::query_as(
        r#"
        select kind, amount_cents, at
        from ledger
        where order_id = $1
        order by id
        "#,
    )
    .bind(order_id)
    .fetch_all(connection)
    .await
}
