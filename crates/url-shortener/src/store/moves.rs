//! How do links get from one database into another, and which databases are there?

use sqlx::Row;
use uuid::Uuid;

use super::Store;
use crate::{code::Code, error::Error};

/// What a database knows of the ring.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct RingRow {
    /// Which shard it is.
    pub shard: Uuid,
    /// All shards of its ring, in their order. Empty in a new database.
    pub shards: Vec<Uuid>,
    /// Links are on their way to where this ring wants them.
    pub moving: bool,
}

impl Store {
    /// What this database knows of the ring. It gets its identity when it is first asked.
    pub async fn ring(&self) -> Result<RingRow, Error> {
        let name = sqlx::query("insert into ring default values on conflict do nothing");
        let ring = sqlx::query_as("select shard, shards, moving from ring");
        self.upkeep
            .within(async |connection| {
                name.execute(&mut *connection).await?;
                ring.fetch_one(connection).await
            })
            .await
    }

    /// Tells this database of a ring.
    pub async fn set_ring(&self, shards: &[Uuid], moving: bool) -> Result<(), Error> {
        let set = sqlx::query("update ring set shards = $1, moving = $2").bind(shards).bind(moving);
        self.upkeep.within(async |connection| set.execute(connection).await).await?;
        Ok(())
    }

    /// The next codes after this one, in the order of the primary key.
    pub async fn codes_after(&self, code: &str, limit: i64) -> Result<Vec<Code>, Error> {
        let codes = sqlx::query_scalar(
            r#"
            select code
            from links
            where code > $1
            order by code
            limit $2
            "#,
        )
        .bind(code)
        .bind(limit);
        self.upkeep.within(async |connection| codes.fetch_all(connection).await).await
    }

    /// Copies these links to another shard; returns the ids of those that are there now. A link is missing among them
    /// if its code has another owner there.
    pub async fn copy_links(&self, codes: &[Code], to: &Self) -> Result<Vec<Uuid>, Error> {
        let pack = sqlx::query_scalar::<_, String>(
            "select coalesce(jsonb_agg(links), '[]')::text from links where code = any ($1)",
        )
        .bind(codes);
        let links = self.upkeep.within(async |connection| pack.fetch_one(connection).await).await?;
        let unpack = sqlx::query(
            r#"
            insert into links (code, id, url, edit_token, created_at, expires_at)
            select code, id, url, edit_token, created_at, expires_at
            from jsonb_populate_recordset(null::links, $1::text::jsonb)
            on conflict (code) do nothing
            "#,
        )
        .bind(&links);
        let there = sqlx::query_scalar(
            r#"
            select links.id
            from links
            join jsonb_populate_recordset(null::links, $1::text::jsonb) as copied using (code, id)
            "#,
        )
        .bind(&links);
        to.upkeep
            .within(async |connection| {
                unpack.execute(&mut *connection).await?;
                there.fetch_all(connection).await
            })
            .await
    }

    /// Copies up to `limit` rows of these links' clicks to another shard, behind the first `offset`; how many there
    /// were. Nobody clicks meanwhile, so the rows keep their places.
    pub async fn copy_clicks(
        &self,
        links: &[Uuid],
        offset: i64,
        limit: i64,
        to: &Self,
    ) -> Result<i64, Error> {
        let pack = sqlx::query(
            r#"
            select count(*), coalesce(jsonb_agg(piece), '[]')::text
            from (
                select link, day, referrer, clicks
                from clicks
                where link = any ($1)
                order by link, day, referrer
                offset $2
                limit $3
            ) as piece
            "#,
        )
        .bind(links)
        .bind(offset)
        .bind(limit);
        let piece = self.upkeep.within(async |connection| pack.fetch_one(connection).await).await?;
        let unpack = sqlx::query(
            r#"
            insert into clicks (link, day, referrer, clicks)
            select link, day, referrer, clicks
            from jsonb_populate_recordset(null::clicks, $1::text::jsonb)
            on conflict (link, day, referrer) do nothing
            "#,
        )
        .bind(piece.try_get::<String, _>(1)?);
        to.upkeep.within(async |connection| unpack.execute(connection).await).await?;
        Ok(piece.try_get(0)?)
    }

    /// Deletes these links. Their clicks stay for the sweep.
    pub async fn delete_all(&self, codes: &[Code], ids: &[Uuid]) -> Result<(), Error> {
        let delete = sqlx::query("delete from links where code = any ($1) and id = any ($2)");
        let delete = delete.bind(codes).bind(ids);
        self.upkeep.within(async |connection| delete.execute(connection).await).await?;
        Ok(())
    }
}
