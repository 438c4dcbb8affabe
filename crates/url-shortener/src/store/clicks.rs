//! How are clicks counted in the database?

use std::borrow::Cow;

use serde_json::Value;
use time::Date;
use uuid::Uuid;

use super::{Link, Store};
use crate::{code::Code, error::Error};

/// Rows that one link gets on one day, beside the one for all other hosts. Strangers choose the `Referer`, and must not
/// choose how much we store.
pub const MOST_REFERRERS: usize = 100;
/// Days in the statistics of a link, the last ones.
const MOST_DAYS: i64 = 366;

/// What is counted together, and how often. Its order is the one in which rows are locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visit {
    /// The link's code.
    pub code: Code,
    /// Which link, of those that had this code.
    pub link: Uuid,
    /// In UTC.
    pub day: Date,
    /// The host of the page with the link on it.
    pub referrer: Cow<'static, str>,
    /// How often.
    pub clicks: i64,
}

impl Store {
    // ANCHOR: click_batch
    /// Adds the clicks to those that are counted, all or none. They must be sorted.
    pub async fn add_clicks(&self, visits: &[Visit]) -> Result<(), Error> {
        let links: Vec<_> = visits.iter().map(|visit| visit.link).collect();
        let days: Vec<_> = visits.iter().map(|visit| visit.day).collect();
        // `for no key update` keeps a link from being deleted until this is done, and other processes from adding to
        // it: rows are then locked in the same order by all of them. A link that is gone drops out.
        let add = sqlx::query(
            r#"
            with alive as (
                select code, id
                from links
                where code = any ($1)
                order by code
                for no key update
            )
            insert into clicks (link, day, referrer, clicks)
            select alive.id, visit.day, visit.referrer, visit.clicks
            from alive
            join unnest($1::text[], $2::uuid[], $3::date[], $4::text[], $5::bigint[])
                as visit (code, link, day, referrer, clicks)
                on visit.code collate "C" = alive.code and visit.link = alive.id
            on conflict (link, day, referrer) do update
            set clicks = clicks.clicks + excluded.clicks
            "#,
        )
        .bind(visits.iter().map(|visit| visit.code.as_str()).collect::<Vec<_>>())
        .bind(&links)
        .bind(&days)
        .bind(visits.iter().map(|visit| &*visit.referrer).collect::<Vec<_>>())
        .bind(visits.iter().map(|visit| visit.clicks).collect::<Vec<_>>());
        // The largest hosts of each day stay; the others are added up.
        let fold = sqlx::query(
            r#"
            with ranked as (
                select
                    link,
                    day,
                    referrer,
                    row_number() over (partition by link, day order by clicks desc, referrer) as place
                from clicks
                where (link, day) in (select link, day from unnest($1::uuid[], $2::date[]) as visit (link, day))
                    and referrer <> 'other'
            ),
            folded as (
                delete from clicks
                using ranked
                where place > $3
                    and (clicks.link, clicks.day, clicks.referrer)
                        = (ranked.link, ranked.day, ranked.referrer)
                returning clicks.link, clicks.day, clicks.clicks
            )
            insert into clicks (link, day, referrer, clicks)
            select link, day, 'other', sum(clicks)
            from folded
            group by link, day
            on conflict (link, day, referrer) do update
            set clicks = clicks.clicks + excluded.clicks
            "#,
        )
        .bind(&links)
        .bind(&days)
        .bind(MOST_REFERRERS as i64);
        self.upkeep
            .transaction(async |connection| {
                add.execute(&mut *connection).await?;
                fold.execute(connection).await?;
                Ok(())
            })
            .await
    }
    // ANCHOR_END: click_batch

    /// Deletes up to `limit` rows of clicks whose links are gone; how many there were.
    pub async fn sweep_clicks(&self, limit: u32) -> Result<u64, Error> {
        let sweep = sqlx::query(
            r#"
            delete from clicks
            where ctid = any (array(
                select clicks.ctid
                from clicks
                join deleted_links on deleted_links.id = clicks.link
                limit $1
            ))
            "#,
        )
        .bind(i64::from(limit));
        // A link that is gone gets no more clicks, so one without any is done.
        let forget = sqlx::query(
            "delete from deleted_links where not exists (select from clicks where link = id)",
        );
        self.upkeep
            .within(async |connection| {
                let swept = sweep.execute(&mut *connection).await?.rows_affected();
                forget.execute(connection).await?;
                Ok(swept)
            })
            .await
    }

    /// The statistics of a link, as clients see them: all clicks, the last days in their order, the largest hosts.
    pub async fn stats(&self, link: &Link) -> Result<Value, Error> {
        let stats = sqlx::query_scalar(
            r#"
            with days as (
                select day, sum(clicks)::bigint as clicks
                from clicks
                where link = $1
                group by day
                order by day desc
                limit $3
            ),
            ranked as (
                select
                    referrer,
                    sum(clicks)::bigint as clicks,
                    row_number() over (order by sum(clicks) desc, referrer) as place
                from clicks
                where link = $1
                group by referrer
            ),
            hosts as (
                select
                    case when place <= $4 then referrer else 'other' end as host,
                    sum(clicks)::bigint as clicks
                from ranked
                group by 1
            )
            select jsonb_build_object(
                'code', $2::text,
                'clicks', (select coalesce(sum(clicks), 0)::bigint from hosts),
                'by_day', (select coalesce(jsonb_agg(days order by day), '[]') from days),
                'referrers',
                (select coalesce(jsonb_agg(hosts order by clicks desc, host), '[]') from hosts)
            )
            "#,
        )
        .bind(link.id)
        .bind(&link.code)
        .bind(MOST_DAYS)
        .bind(MOST_REFERRERS as i64);
        self.calls.within(async |connection| stats.fetch_one(connection).await).await
    }
}
