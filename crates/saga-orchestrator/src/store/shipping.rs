//! What does the shipping service keep? Parcels, and what it answered.

use sqlx::{PgConnection, migrate::Migrator};
use time::OffsetDateTime;
use uuid::Uuid;

use super::calls::{Answer, Asked, replay};

/// The schema.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/shipping");

pub(crate) const BOOK: &str = r#"
    with call as (
        insert into calls (order_id, action_key, request, refusal)
        values ($1, $2, $3, $4)
        on conflict (order_id) do nothing
        returning order_id, request, refusal
    ), effect as (
        insert into shipments (order_id, address)
        select order_id, request -> 'address'
        from call
        where refusal is null
    )
    select refusal from call
"#;

/// Books a parcel, unless there is a reason not to.
pub async fn book(
    connection: &mut PgConnection,
    asked: &Asked,
    refusal: Option<&str>,
) -> sqlx::Result<Answer> {
    let first: Option<Option<String>> = sqlx::query_scalar(BOOK)
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

/// Cancels the parcel, if there is one.
pub async fn cancel(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    // Two statements: one alone sees the parcels as they were when it began, and would miss one whose booking
    // it had to wait for. Both are safe to repeat.
    sqlx::query(
        r#"
        insert into calls (order_id, undo_key)
        values ($1, $2)
        on conflict (order_id) do update set undo_key = excluded.undo_key
            where calls.undo_key is null
        "#,
    )
    .bind(asked.order_id)
    .bind(&asked.key)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "update shipments set cancelled_at = now() where order_id = $1 and cancelled_at is null",
    )
    .bind(asked.order_id)
    .execute(connection)
    .await?;
    Ok(Answer::Done)
}

/// A parcel.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Shipment {
    /// Its number.
    pub id: i64,
    /// When it was booked.
    pub booked_at: OffsetDateTime,
    /// When it was cancelled, if it was.
    pub cancelled_at: Option<OffsetDateTime>,
}

/// The parcels of an order.
pub async fn shipments(
    connection: &mut PgConnection,
    order_id: Uuid,
) -> sqlx::Result<Vec<Shipment>> {
    sqlx::query_as(
        r#"
        select id, booked_at, cancelled_at
        from shipments
        where order_id = $1
        order by id
        "#,
    )
    .bind(order_id)
    .fetch_all(connection)
    .await
}
