//! How are clicks counted in the database?

use time::Date;

use super::Store;
use crate::{code::Code, error::Error, referrer::Referrer};

/// What is counted together. Its order is that of the table's primary key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visit {
    /// The link's code.
    pub code: Code,
    /// In UTC.
    pub day: Date,
    /// The host of the page with the link on it.
    pub referrer: Referrer,
}

/// Some of the clicks of one link; `day` and `referrer` where they are summed up for those.
#[derive(Debug, sqlx::FromRow)]
pub struct Sum {
    /// The UTC day, in a sum for a day.
    pub day: Option<Date>,
    /// The referring host, in a sum for one.
    pub referrer: Option<String>,
    /// How many.
    pub clicks: i64,
}

impl Store {
    // ANCHOR: click_batch
    /// Adds the clicks to those that are counted, all or none. They must be sorted.
    pub async fn add_clicks(&self, clicks: &[(&Visit, &i64)]) -> Result<(), Error> {
        let codes: Vec<&str> = clicks.iter().map(|(visit, _)| visit.code.as_str()).collect();
        let days: Vec<Date> = clicks.iter().map(|(visit, _)| visit.day).collect();
        let referrers: Vec<&str> =
            clicks.iter().map(|(visit, _)| visit.referrer.as_str()).collect();
        let counts: Vec<i64> = clicks.iter().map(|(_, clicks)| **clicks).collect();
        self.database
            .within(async |connection| {
                // `for key share` keeps the links from being deleted until this is done; those that are
                // gone already drop out, where the foreign key would have failed the whole batch. Links and
                // counters are locked in the order of their keys, so no two batches wait for each other.
                sqlx::query(
                    r#"
                with batch as (
                    select code, day, referrer, clicks
                    from unnest($1::text[], $2::date[], $3::text[], $4::bigint[])
                        as batch (code, day, referrer, clicks)
                ),
                alive as (
                    select code
                    from links
                    where code = any ($1)
                    order by code
                    for key share
                )
                insert into clicks (code, day, referrer, clicks)
                select alive.code, batch.day, batch.referrer, batch.clicks
                from alive
                join batch on batch.code collate "C" = alive.code
                order by alive.code, batch.day, batch.referrer collate "C"
                on conflict (code, day, referrer) do update
                set clicks = clicks.clicks + excluded.clicks
                "#,
                )
                .bind(&codes)
                .bind(&days)
                .bind(&referrers)
                .bind(&counts)
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }
    // ANCHOR_END: click_batch

    /// The clicks of a link: by day in their order, by referrer with the largest first, and all in all. One
    /// statement, so the sums agree.
    pub async fn clicks(&self, code: &Code) -> Result<Vec<Sum>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                select day, referrer, coalesce(sum(clicks), 0)::bigint as clicks
                from clicks
                where code = $1
                group by grouping sets ((day), (referrer), ())
                order by day, clicks desc, referrer
                "#,
                )
                .bind(code)
                .fetch_all(connection)
                .await
            })
            .await
    }
}
