//! One query for the list, and one more for each of its items.

use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use crate::order::{Line, Order};

// ANCHOR: lookups
/// The orders of a customer: N + 1 statements, as an object mapper sends them that loads lines when they are first named.
pub async fn orders_of(connection: &mut PgConnection, customer: &str) -> sqlx::Result<Vec<Order>> {
    let heads = "select id, ordered_at, total_cents from orders where customer = $1 order by id desc limit 100";
    let heads: Vec<(String, OffsetDateTime, i64)> =
        sqlx::query_as(heads).bind(customer).fetch_all(&mut *connection).await?;
    let mut orders = Vec::new();
    for (id, ordered_at, total_cents) in heads {
        let lines = "select jsonb_build_object('product', product, 'name', name, 'quantity', quantity, 'price_cents', price_cents) from order_lines where order_id = $1 order by product";
        let lines: Vec<Json<Line>> =
            sqlx::query_scalar(lines).bind(&id).fetch_all(&mut *connection).await?;
        let (customer, lines) = (customer.to_owned(), lines.into_iter().map(|it| it.0).collect());
        orders.push(Order { id, customer, ordered_at, total_cents, lines });
    }
    Ok(orders)
}
// ANCHOR_END: lookups
