//! Which databases belong together, and how do links get from one into another?

use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::Store;
use crate::{code::Code, error::Error};

impl Store {
    /// What this database knows of the ring: which shard it is, all shards in their order (none if it is new), and
    /// whether links are being moved.
    pub async fn ring(&self) -> Result<(Uuid, Vec<Uuid>, bool), Error> {
        // Asked at each start, so without a prepared statement: a pooler that shares sessions loses those.
        let name = sqlx::raw_sql("insert into ring default values on conflict do nothing");
        let ring = sqlx::raw_sql("select shard, shards, moving from ring");
        self.upkeep.within(async |connection| name.execute(connection).await).await?;
        let row = self.upkeep.within(async |connection| ring.fetch_one(connection).await).await?;
        Ok((row.try_get("shard")?, row.try_get("shards")?, row.try_get("moving")?))
    }

    /// Tells this database of a ring.
    pub async fn set_ring(&self, shards: &[Uuid], moving: bool) -> Result<(), Error> {
        let shards: Vec<_> = shards.iter().map(Uuid::to_string).collect();
        let shards = shards.join(",");
        let set = format!("update ring set shards = '{{{shards}}}', moving = {moving}");
        let set = sqlx::raw_sql(AssertSqlSafe(set));
        self.upkeep.within(async |connection| set.execute(connection).await).await?;
        Ok(())
    }

    /// The next codes after this one, in the order of the primary key.
    pub async fn codes_after(&self, code: &str, limit: i64) -> Result<Vec<Code>, Error> {
        let codes =
            sqlx::query_scalar("select code from links where code > $1 order by code limit $2");
        let codes = codes.bind(code).bind(limit);
        self.upkeep.within(async |connection| codes.fetch_all(connection).await).await
    }

    /// Copies these links to another shard; returns the ids of those that are there now. If a code has another owner
    /// there, its link is missing among them.
    pub async fn copy_links(&self, codes: &[Code], to: &Self) -> Result<Vec<Uuid>, Error> {
        let pack = sqlx::query_scalar::<_, String>(
            "select coalesce(jsonb_agg(links), '[]')::text from links where code = any ($1)",
        );
        let pack = pack.bind(codes);
        let links = self.upkeep.within(async |connection| pack.fetch_one(connection).await).await?;
        let unpack = sqlx::query(
            r#"
            insert into links
            select (jsonb_populate_recordset(null::links, $1::text::jsonb)).*
            on conflict (code) do nothing
            "#,
        );
        let there = sqlx::query_scalar(
            r#"
            select links.id
            from links
            join jsonb_populate_recordset(null::links, $1::text::jsonb) as copy using (code, id)
            "#,
        );
        let (unpack, there) = (unpack.bind(&links), there.bind(&links));
        to.upkeep.within(async |connection| unpack.execute(connection).await).await?;
        to.upkeep.within(async |connection| there.fetch_all(connection).await).await
    }

    /// Copies a piece of these links' clicks to another shard; how many rows it had. Nobody clicks meanwhile, so the
    /// rows keep their places.
    pub async fn copy_clicks(
        &self,
        links: &[Uuid],
        (offset, limit): (i64, i64),
        to: &Self,
    ) -> Result<i64, Error> {
        let pack = sqlx::query_as::<_, (i64, String)>(
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
        );
        let pack = pack.bind(links).bind(offset).bind(limit);
        let (rows, piece) =
            self.upkeep.within(async |connection| pack.fetch_one(connection).await).await?;
        let unpack = sqlx::query(
            r#"
            insert into clicks
            select (jsonb_populate_recordset(null::clicks, $1::text::jsonb)).*
            on conflict (link, day, referrer) do nothing
            "#,
        );
        let unpack = unpack.bind(&piece);
        to.upkeep.within(async |connection| unpack.execute(connection).await).await?;
        Ok(rows)
    }

    /// Deletes these links. Their clicks stay for the sweep.
    pub async fn delete_all(&self, codes: &[Code], ids: &[Uuid]) -> Result<(), Error> {
        let delete = sqlx::query("delete from links where code = any ($1) and id = any ($2)");
        let delete = delete.bind(codes).bind(ids);
        self.upkeep.within(async |connection| delete.execute(connection).await).await?;
        Ok(())
    }
}
