//! How do links get from one database into another?

use super::Store;
use crate::{code::Code, error::Error};

/// Links with their clicks, packed for a move: rows of both tables, as JSON.
#[derive(Debug, sqlx::FromRow)]
pub struct Cargo {
    links: String,
    clicks: String,
}

impl Store {
    /// The next codes after this one, in the order of the primary key.
    pub async fn codes_after(&self, code: &str, limit: u32) -> Result<Vec<Code>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_scalar(
                    r#"
                select code
                from links
                where code > $1
                order by code
                limit $2
                "#,
                )
                .bind(code)
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await
            })
            .await
    }

    /// A copy of these links.
    pub async fn pack(&self, codes: &[Code]) -> Result<Cargo, Error> {
        self.database.within(async |connection| {
            sqlx::query_as(
                r#"
                select
                    (select coalesce(jsonb_agg(links), '[]')::text from links where code = any ($1)) as links,
                    (select coalesce(jsonb_agg(clicks), '[]')::text from clicks where code = any ($1)) as clicks
                "#,
            )
            .bind(codes)
            .fetch_one(connection)
            .await
        })
        .await
    }

    /// Puts the links here, all or none. Those that are here already stay as they are, so that a move
    /// that was interrupted can be made again.
    pub async fn unpack(&self, cargo: &Cargo) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query(
                    r#"
                with moved as (
                    insert into links (code, url, shared, created_at, expires_at)
                    select code, url, shared, created_at, expires_at
                    from jsonb_populate_recordset(null::links, $1::text::jsonb)
                    on conflict (code) do nothing
                )
                insert into clicks (code, day, referrer, clicks)
                select code, day, referrer, clicks
                from jsonb_populate_recordset(null::clicks, $2::text::jsonb)
                on conflict (code, day, referrer) do nothing
                "#,
                )
                .bind(&cargo.links)
                .bind(&cargo.clicks)
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }

    /// Deletes these links with their clicks.
    pub async fn delete_all(&self, codes: &[Code]) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query("delete from links where code = any ($1)")
                    .bind(codes)
                    .execute(connection)
                    .await
            })
            .await?;
        Ok(())
    }
}
