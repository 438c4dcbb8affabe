//! What does the inventory keep? Its stock, and what it answered.

use sqlx::{PgConnection, migrate::Migrator};

use super::calls::{Answer, Asked, replay};

/// The schema.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/inventory");

/// What there is of a sku.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct Stock {
    /// What.
    pub sku: String,
    /// Can be ordered.
    pub available: i64,
    /// Promised to orders on their way.
    pub reserved: i64,
    /// Sold for good.
    pub sold: i64,
}

/// Sets what can be ordered; what is promised or sold stays so.
pub async fn put(connection: &mut PgConnection, sku: &str, quantity: i64) -> sqlx::Result<Stock> {
    sqlx::query_as(
        r#"
        insert into stock (sku, available)
        values ($1, $2)
        on conflict (sku) do update set available = excluded.available
        returning sku, available, reserved, sold
        "#,
    )
    .bind(sku)
    .bind(quantity)
    .fetch_one(connection)
    .await
}

/// What there is of it, if it was ever put in.
pub async fn find(connection: &mut PgConnection, sku: &str) -> sqlx::Result<Option<Stock>> {
    sqlx::query_as("select sku, available, reserved, sold from stock where sku = $1")
        .bind(sku)
        .fetch_optional(connection)
        .await
}

// ANCHOR: reserve_sql
pub(crate) const RESERVE: &str = r#"
    with wanted as (
        select sku, quantity
        from jsonb_to_recordset($3 -> 'items') as item (sku text, quantity bigint)
    ), short as (
        select
            case
                when stock.sku is null then 'there is no sku ' || wanted.sku
                else wanted.sku || ' is out of stock'
            end as reason
        from wanted
        left join stock using (sku)
        where stock.sku is null or stock.available < wanted.quantity
        order by wanted.sku
        limit 1
    ), call as (
        insert into calls (order_id, action_key, request, refusal)
        values ($1, $2, $3, (select reason from short))
        on conflict (order_id) do nothing
        returning refusal
    ), effect as (
        update stock
        set available = available - wanted.quantity, reserved = reserved + wanted.quantity
        from wanted, call
        where stock.sku = wanted.sku and call.refusal is null
    )
    select refusal from call
"#;

/// Promises all items of the order to it, or none.
///
/// The look at the stock gives the usual refusal its reason. What decides is the constraint: of two that see
/// the last item, the second waits for the first, fails, and looks again.
pub async fn reserve(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    loop {
        let first: sqlx::Result<Option<Option<String>>> = sqlx::query_scalar(RESERVE)
            .bind(asked.order_id)
            .bind(&asked.key)
            .bind(&asked.request)
            .fetch_optional(&mut *connection)
            .await;
        match first {
            Ok(Some(refusal)) => return Ok(refusal.into()),
            Ok(None) => return replay(connection, asked).await,
            Err(sqlx::Error::Database(error)) if error.constraint() == Some("stock_is_enough") => {}
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: reserve_sql

/// Takes the promise back, if there was one. Refused once the items are sold.
pub async fn release(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    let sold: bool = sqlx::query_scalar(
        r#"
        with call as (
            insert into calls (order_id, undo_key)
            values ($1, $2)
            on conflict (order_id) do update set undo_key = excluded.undo_key
                where calls.undo_key is null and calls.sell_key is null
            returning request, action_key is not null and refusal is null as was_done
        ), effect as (
            update stock
            set available = available + item.quantity, reserved = reserved - item.quantity
            from
                call,
                jsonb_to_recordset(call.request -> 'items') as item (sku text, quantity bigint)
            where call.was_done and stock.sku = item.sku
        )
        select exists (select from calls where order_id = $1 and sell_key is not null)
        "#,
    )
    .bind(asked.order_id)
    .bind(&asked.key)
    .fetch_one(connection)
    .await?;
    Ok(if sold { Answer::Refused("the items are sold".to_owned()) } else { Answer::Done })
}

pub(crate) const SELL: &str = r#"
    with call as (
        update calls
        set sell_key = $2
        where
            order_id = $1
            and action_key is not null
            and refusal is null
            and undo_key is null
            and sell_key is null
        returning request
    ), effect as (
        update stock
        set reserved = reserved - item.quantity, sold = sold + item.quantity
        from
            call,
            jsonb_to_recordset(call.request -> 'items') as item (sku text, quantity bigint)
        where stock.sku = item.sku
    )
    select count(*) from call
"#;

/// Sells what was promised. Without a promise there is nothing to sell.
pub async fn sell(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    let sold: i64 = sqlx::query_scalar(SELL)
        .bind(asked.order_id)
        .bind(&asked.key)
        .fetch_one(&mut *connection)
        .await?;
    let is_sold = sold > 0
        || sqlx::query_scalar(
            "select exists (select from calls where order_id = $1 and sell_key = $2)",
        )
        .bind(asked.order_id)
        .bind(&asked.key)
        .fetch_one(connection)
        .await?;
    let refusal = "nothing is reserved for this order".to_owned();
    Ok(if is_sold { Answer::Done } else { Answer::Refused(refusal) })
}
