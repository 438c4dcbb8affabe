//! Which databases belong together, and how do links get from one into another?

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::Store;
use crate::{code::Code, error::Error};

/// Rows of clicks that are copied at a time.
const PIECE: u16 = 1_000;

impl Store {
    /// What this database knows of the ring: which shard it is, all shards in their order (none if it is new), and
    /// whether links are being moved.
    pub async fn ring(&self) -> Result<(Uuid, Vec<Uuid>, bool), Error> {
        // Asked at each start, so without a prepared statement: a pooler that shares sessions loses those.
        let name = sqlx::raw_sql("insert into ring default values on conflict do nothing");
        self.upkeep.execute(name).await?;
        let ring = sqlx::raw_sql("select shard, shards, moving from ring");
        let row = self.upkeep.within(async |connection| ring.fetch_one(connection).await).await?;
        Ok((row.try_get("shard")?, row.try_get("shards")?, row.try_get("moving")?))
    }

    /// Tells this database of a ring.
    pub async fn set_ring(&self, shards: &[Uuid], moving: bool) -> Result<u64, Error> {
        let shards = shards.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",");
        let set = format!("update ring set shards = '{{{shards}}}', moving = {moving}");
        self.upkeep.execute(sqlx::raw_sql(AssertSqlSafe(set))).await
    }

    /// The next codes after this one, in the order of the primary key.
    pub async fn codes_after(&self, code: &str, limit: i64) -> Result<Vec<Code>, Error> {
        let codes =
            sqlx::query_scalar("select code from links where code > $1 order by code limit $2");
        let codes = codes.bind(code).bind(limit);
        self.upkeep.within(async |connection| codes.fetch_all(connection).await).await
    }

    /// Copies these links to another shard; returns the codes that they have there now. A code that has another owner
    /// there is missing among them.
    pub async fn copy_links(&self, codes: &[&Code], to: &Self) -> Result<Vec<Code>, Error> {
        let read = sqlx::query_scalar("select jsonb_agg(links) from links where code = any ($1)");
        let read = read.bind(codes);
        let links = self.upkeep.within(async |connection| read.fetch_one(connection).await).await?;
        // A link that is there already is returned too: the update changes nothing.
        let write = sqlx::query_scalar(
            r#"
            insert into links
            select (jsonb_populate_recordset(null::links, $1)).*
            on conflict (code) do update
            set id = excluded.id
            where links.id = excluded.id
            returning code
            "#,
        );
        let write = write.bind::<Value>(links);
        to.upkeep.within(async |connection| write.fetch_all(connection).await).await
    }

    /// Copies these links' clicks, a piece at a time. Nobody clicks meanwhile, so the rows keep their places.
    pub async fn copy_clicks(&self, codes: &[Code], to: &Self) -> Result<(), Error> {
        for offset in (0_i64..).step_by(PIECE.into()) {
            let read = sqlx::query_scalar::<_, Option<Value>>(
                r#"
                select jsonb_agg(piece)
                from (
                    select link, day, referrer, clicks
                    from links
                    join clicks on link = id
                    where code = any ($1)
                    order by link, day, referrer
                    offset $2
                    limit $3
                ) as piece
                "#,
            );
            let read = read.bind(codes).bind(offset).bind(i32::from(PIECE));
            let piece = self.upkeep.within(async |connection| read.fetch_one(connection).await);
            let Some(piece) = piece.await? else { break };
            let write = sqlx::query(
                r#"
                insert into clicks
                select (jsonb_populate_recordset(null::clicks, $1)).*
                on conflict (link, day, referrer) do nothing
                "#,
            );
            to.upkeep.execute(write.bind(piece)).await?;
        }
        Ok(())
    }

    /// Deletes these links. Their clicks stay for the sweep.
    pub async fn delete_all(&self, codes: &[Code]) -> Result<u64, Error> {
        let delete = sqlx::query("delete from links where code = any ($1)");
        self.upkeep.execute(delete.bind(codes)).await
    }
}
