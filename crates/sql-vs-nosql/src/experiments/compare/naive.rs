//! Read, compute, write back: what happens when others do so at the same moment?

use redis::{AsyncCommands, aio::MultiplexedConnection, cmd, pipe};
use serde_json::{Value, json};
use sqlx::{PgPool, types::Json};

/// How a counter is made smaller by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// GET and SET, with nothing in between.
    ReadAndSet,
    /// The same between WATCH and EXEC, again until nobody was in between.
    Watch,
}

// ANCHOR: read_and_set
/// Takes one piece; how often it had to try again.
pub async fn take(redis: &mut MultiplexedConnection, key: &str, way: Way) -> anyhow::Result<u64> {
    for again in 0.. {
        if way == Way::Watch {
            cmd("WATCH").arg(key).exec_async(redis).await?;
        }
        let stock: i64 = redis.get(key).await?;
        if way == Way::ReadAndSet {
            let () = redis.set(key, stock - 1).await?;
            return Ok(0);
        }
        let mut set = pipe();
        // EXEC answers with nil if somebody has written the key since WATCH.
        let done: Option<()> = set.atomic().set(key, stock - 1).ignore().query_async(redis).await?;
        if done.is_some() {
            return Ok(again);
        }
    }
    Ok(0)
}
// ANCHOR_END: read_and_set

/// The same in a document: it is read, changed and written back as a whole, with the lock or without.
pub async fn take_from_document(pool: &PgPool, id: &str, locked: bool) -> anyhow::Result<()> {
    let find = if locked {
        "select body from product_documents where id = $1 for update"
    } else {
        "select body from product_documents where id = $1"
    };
    let mut tx = pool.begin().await?;
    let Json(mut body): Json<Value> = sqlx::query_scalar(find).bind(id).fetch_one(&mut *tx).await?;
    body["stock"] = json!(body["stock"].as_i64().unwrap_or_default() - 1);
    let write = "update product_documents set body = $2 where id = $1";
    sqlx::query(write).bind(id).bind(Json(body)).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// Writes a product and its index by hand, one command after the other.
pub async fn put_by_hand(
    redis: &mut MultiplexedConnection,
    product: &str,
    index: &str,
    body: &str,
) -> anyhow::Result<()> {
    let () = redis.hset(product, "body", body).await?;
    let () = redis.sadd(index, product).await?;
    Ok(())
}
