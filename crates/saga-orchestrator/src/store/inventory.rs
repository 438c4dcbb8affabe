//! What does the inventory keep? Its stock, and what it answered.
//!
//! Invariant: a reserved item is not reserved again. The row of its stock is locked, and looked at again, before it is
//! changed.

use serde_json::Value;
use sqlx::{PgConnection, migrate::Migrator};

use super::calls::{Answer, Asked, replay};

/// The schema.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/inventory");

/// Sets what can be ordered; what is reserved or sold stays so.
pub async fn put(connection: &mut PgConnection, sku: &str, quantity: i64) -> sqlx::Result<Value> {
    sqlx::query_scalar(
        r#"
        insert into stock (sku, available)
        values ($1, $2)
        on conflict (sku) do update set available = excluded.available
        returning to_jsonb(stock)
        "#,
    )
    .bind(sku)
    .bind(quantity)
    .fetch_one(connection)
    .await
}

/// What there is of it, if it was ever put in.
pub async fn find(connection: &mut PgConnection, sku: &str) -> sqlx::Result<Option<Value>> {
    sqlx::query_scalar("select to_jsonb(stock) from stock where sku = $1")
        .bind(sku)
        .fetch_optional(connection)
        .await
}

// ANCHOR: reserve_sql
pub(crate) const RESERVE: &str = r#"
    with wanted as (
        select sku, quantity
        from jsonb_to_recordset($3 -> 'items') as item (sku text, quantity bigint)
    ), locked as (
        select stock.sku
        from stock
        join wanted using (sku)
        where stock.available >= wanted.quantity
        order by stock.sku
        for update of stock
    ), short as (
        select wanted.sku || ' is out of stock' as reason
        from wanted
        where wanted.sku not in (select sku from locked)
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

/// Reserves all items of the order for it, or none.
///
/// Of two orders that want the last item, the second waits for the lock. Then PostgreSQL looks at the row again, and one
/// that does not suffice any more is left out of `locked`. What does not suffice at the first look is refused without a
/// lock: otherwise all who come too late would queue for the row of the hot item. Reservations lock in the order of the
/// skus, so two of them cannot deadlock. A release or a sale locks in any order: should it meet a reservation halfway,
/// PostgreSQL ends one of the two, and it is asked for again. The constraint on `available` only guards against a mistake
/// in this statement.
pub async fn reserve(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    let first: Option<Option<String>> = sqlx::query_scalar(RESERVE)
        .bind(asked.order_id)
        .bind(&asked.key)
        .bind(&asked.request)
        .fetch_optional(&mut *connection)
        .await?;
    match first {
        Some(refusal) => Ok(refusal.map_or(Answer::Done, Answer::Refused)),
        None => replay(connection, asked).await,
    }
}
// ANCHOR_END: reserve_sql

/// Makes the items available again, if they were reserved. Refused once they are sold.
pub async fn release(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    sqlx::query(
        r#"
        with call as (
            insert into calls (order_id, undo_key)
            values ($1, $2)
            on conflict (order_id) do update set undo_key = excluded.undo_key
                where calls.undo_key is null and calls.sell_key is null
            returning request, action_key is not null and refusal is null as was_done
        )
        update stock
        set available = available + item.quantity, reserved = reserved - item.quantity
        from
            call,
            jsonb_to_recordset(call.request -> 'items') as item (sku text, quantity bigint)
        where call.was_done and stock.sku = item.sku
        "#,
    )
    .bind(asked.order_id)
    .bind(&asked.key)
    .execute(&mut *connection)
    .await?;
    // A statement of its own sees also what the one above had to wait for.
    let is_sold = "select sell_key is not null from calls where order_id = $1";
    let is_sold = sqlx::query_scalar(is_sold).bind(asked.order_id).fetch_one(connection).await?;
    Ok(if is_sold { Answer::Refused("the items are sold".to_owned()) } else { Answer::Done })
}

pub(crate) const SELL: &str = r#"
    with call as (
        update calls
        set sell_key = $2
        where order_id = $1 and action_key is not null and (refusal, undo_key, sell_key) is null
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

/// Sells what was reserved. Without a reservation there is nothing to sell.
pub async fn sell(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Answer> {
    let sold: i64 = sqlx::query_scalar(SELL)
        .bind(asked.order_id)
        .bind(&asked.key)
        .fetch_one(&mut *connection)
        .await?;
    let was_sold = "select exists (select from calls where order_id = $1 and sell_key = $2)";
    let was_sold = sqlx::query_scalar(was_sold).bind(asked.order_id).bind(&asked.key);
    let is_sold = sold > 0 || was_sold.fetch_one(connection).await?;
    let refusal = "nothing is reserved for this order".to_owned();
    Ok(if is_sold { Answer::Done } else { Answer::Refused(refusal) })
}
