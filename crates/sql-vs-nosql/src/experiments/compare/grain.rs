//! Who bought this product? A question that goes against the grain: orders are kept by customer.

use std::collections::BTreeSet;

use redis::{AsyncCommands, aio::MultiplexedConnection};
use sqlx::PgPool;

use crate::order::Order;

/// By the index on the lines' products.
pub async fn in_tables(pool: &PgPool, product: &str) -> sqlx::Result<BTreeSet<String>> {
    let select =
        "select distinct customer from order_lines join orders on id = order_id where product = $1";
    let found: Vec<_> = sqlx::query_scalar(select).bind(product).fetch_all(pool).await?;
    Ok(found.into_iter().collect())
}

/// By the GIN index over the lines in the documents.
pub async fn in_documents(pool: &PgPool, product: &str) -> sqlx::Result<BTreeSet<String>> {
    let select = "select distinct body ->> 'customer' from order_documents where body -> 'lines' @> jsonb_build_array(jsonb_build_object('product', $1))";
    let found: Vec<_> = sqlx::query_scalar(select).bind(product).fetch_all(pool).await?;
    Ok(found.into_iter().collect())
}

/// By reading every order; how many bytes that were.
pub async fn under_keys(
    redis: &mut MultiplexedConnection,
    prefix: &str,
    product: &str,
) -> anyhow::Result<(BTreeSet<String>, usize)> {
    let keys: Vec<String> = redis.lrange(format!("{prefix}index:orders"), 0, -1).await?;
    let (mut found, mut bytes) = (BTreeSet::new(), 0);
    for page in keys.chunks(1_000) {
        let orders: Vec<String> = redis.mget(page).await?;
        for order in orders {
            bytes += order.len();
            let order: Order = serde_json::from_str(&order)?;
            if order.lines.iter().any(|line| line.product == product) {
                found.insert(order.customer);
            }
        }
    }
    Ok((found, bytes))
}
