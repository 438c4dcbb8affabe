//! Which workers live? Those that said so lately, by the database's clock.

use std::ops::RangeInclusive;

use super::Store;
use crate::{error::Error, shard::Member};

impl Store {
    // ANCHOR: members
    /// Says that this worker lives; returns all that do.
    pub async fn beat(&self, me: &Member, lease_seconds: f64) -> Result<Vec<Member>, Error> {
        let rows: Vec<(String, i32, i32)> = self
            .database
            .within(async |connection| {
                sqlx::query(
                    r#"
                    insert into workers (name, first_shard, last_shard)
                    values ($1, $2, $3)
                    on conflict (name) do update
                    set seen_at = now()
                    "#,
                )
                .bind(&me.name)
                .bind(i32::from(*me.shards.start()))
                .bind(i32::from(*me.shards.end()))
                .execute(&mut *connection)
                .await?;
                sqlx::query_as(
                    r#"
                    select name, first_shard, last_shard
                    from workers
                    where seen_at > now() - $1 * interval '1 second'
                    order by name
                    "#,
                )
                .bind(lease_seconds)
                .fetch_all(connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(|(name, first, last)| member(name, first, last)).collect())
    }
    // ANCHOR_END: members

    /// Says that this worker is about to leave, and forgets those that have not been seen for long.
    pub async fn leave(&self, name: &str) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query(
                    "delete from workers where name = $1 or seen_at < now() - interval '1 day'",
                )
                .bind(name)
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }
}

fn member(name: String, first: i32, last: i32) -> Member {
    let shard = |number| u16::try_from(number).unwrap_or(u16::MAX);
    let shards: RangeInclusive<u16> = shard(first)..=shard(last);
    Member { name, shards }
}
