//! The tables of TPC-H, made by `tpchgen` and loaded with COPY.

use std::{fmt::Display, mem};

use sqlx::PgConnection;
use tpchgen::distribution::Distributions;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen::text::TextPool;

/// Comments are pieces of one long text. The specification's has 300 MB, which takes seconds to make. So comments are not those of
/// other generators; no other column depends on it.
const TEXT: i32 = 4 << 20;
/// Bytes that are sent at once.
const CHUNK: usize = 1 << 18;

/// Makes the tables at this scale, with their primary and foreign keys.
pub async fn load(connection: &mut PgConnection, scale: f64) -> sqlx::Result<()> {
    let words = Distributions::static_default();
    let text = &TextPool::new(TEXT, words);
    sqlx::raw_sql(include_str!("schema.sql")).execute(&mut *connection).await?;
    let regions = RegionGenerator::new_with_distributions_and_text_pool(words, text);
    copy(connection, "region", regions.iter()).await?;
    let nations = NationGenerator::new_with_distributions_and_text_pool(words, text);
    copy(connection, "nation", nations.iter()).await?;
    let parts = PartGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text);
    copy(connection, "part", parts.iter()).await?;
    let suppliers =
        SupplierGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text);
    copy(connection, "supplier", suppliers.iter()).await?;
    let offers = PartSuppGenerator::new_with_text_pool(scale, 1, 1, text);
    copy(connection, "partsupp", offers.iter()).await?;
    let customers =
        CustomerGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text);
    copy(connection, "customer", customers.iter()).await?;
    let orders = OrderGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text);
    copy(connection, "orders", orders.iter()).await?;
    let items = LineItemGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text);
    copy(connection, "lineitem", items.iter()).await?;
    // VACUUM runs in no transaction, and several statements that are sent together are one.
    for statement in include_str!("keys.sql").split(';') {
        sqlx::raw_sql(statement).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes the rows of one table.
async fn copy<T: Display>(
    connection: &mut PgConnection,
    table: &str,
    rows: impl Iterator<Item = T>,
) -> sqlx::Result<()> {
    let statement = format!("copy {table} from stdin (delimiter '|')");
    let (mut copy, mut lines) = (connection.copy_in_raw(&statement).await?, String::new());
    for row in rows {
        // The specification has a delimiter at the end of a row, too. PostgreSQL would expect another column after it.
        let row = row.to_string();
        lines.push_str(row.strip_suffix('|').unwrap_or(&row));
        lines.push('\n');
        if lines.len() >= CHUNK {
            copy.send(mem::take(&mut lines).into_bytes()).await?;
        }
    }
    copy.send(lines.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}
