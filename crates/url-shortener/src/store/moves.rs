//! Which databases belong together, and how do links get from one into another?

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::Store;
use crate::{code::Code, error::Error};

impl Store {
    /// What this database knows of the ring: which shard it is, all shards in their order (none if it is new), and
    /// whether links are being moved.
    pub async fn ring(&self) -> Result<(Uuid, Vec<Uuid>, bool), Error> {
        // Every start asks this, also behind a pooler that shares sessions and loses prepared statements. So it uses
        // none.
        let name = sqlx::raw_sql("insert into ring default values on conflict do nothing");
        self.moves.execute(name).await?;
        let ring = sqlx::raw_sql("select shard, shards, moving from ring");
        let row = self.moves.within(async |connection| ring.fetch_one(connection).await).await?;
        Ok((row.try_get("shard")?, row.try_get("shards")?, row.try_get("moving")?))
    }

    /// Writes a ring into this database.
    pub async fn set_ring(&self, shards: &[Uuid], moving: bool) -> Result<u64, Error> {
        let shards = shards.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",");
        let set = format!("update ring set shards = '{{{shards}}}', moving = {moving}");
        self.moves.execute(sqlx::raw_sql(AssertSqlSafe(set))).await
    }

    /// The next codes after this one, in the order of the primary key. It returns few, because they are moved together
    /// and a popular link brings a row of clicks for each day and host.
    pub async fn codes_after(&self, code: &str) -> Result<Vec<Code>, Error> {
        let codes = "select code from links where code > $1 order by code limit 50";
        self.moves.within(async |it| sqlx::query_scalar(codes).bind(code).fetch_all(it).await).await
    }

    /// Copies these links to another shard, with their clicks, and returns the codes of those that are there now. If
    /// another link has a code there, that code is not returned. No click may come meanwhile.
    pub async fn copy(&self, codes: &[&Code], to: &Self) -> Result<Vec<Code>, Error> {
        let read = sqlx::query_as::<_, (Option<Value>, Option<Value>)>(
            r#"
            select
                (select jsonb_agg(links) from links where code = any ($1)),
                (
                    select jsonb_agg(visit)
                    from links
                    join clicks as visit on link = id
                    where code = any ($1)
                )
            "#,
        );
        let (links, clicks) =
            self.moves.within(async |it| read.bind(codes).fetch_one(it).await).await?;
        // The update changes nothing. It is there so that a link that was copied before is returned too.
        let write = sqlx::query_scalar(
            r#"
            with copied as (
                insert into links
                select (jsonb_populate_recordset(null::links, $1)).*
                on conflict (code) do update
                set id = excluded.id
                where links.id = excluded.id
                returning code, id
            ), counted as (
                insert into clicks
                select visit.*
                from jsonb_populate_recordset(null::clicks, $2) as visit
                join copied on id = link
                on conflict (link, day, referrer) do nothing
            )
            select code
            from copied
            "#,
        );
        let write = write.bind(links).bind(clicks);
        to.moves.within(async |connection| write.fetch_all(connection).await).await
    }

    /// Deletes these links. Their clicks stay for the sweep.
    pub async fn delete_all(&self, codes: &[Code]) -> Result<u64, Error> {
        let delete = sqlx::query("delete from links where code = any ($1)");
        self.moves.execute(delete.bind(codes)).await
    }
}
