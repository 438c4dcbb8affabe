//! How are clicks counted in the database?

use std::borrow::Cow;

use serde_json::Value;
use time::Date;
use uuid::Uuid;

use super::{Link, Store};
use crate::{code::Code, error::Error};

/// Hosts that the statistics of a link show, beside "other". Strangers choose the `Referer`; they must not choose how
/// much we store. For one day, twice as many hosts are kept, so that a host that comes late has time to grow.
pub const MOST_REFERRERS: u8 = 100;

/// Clicks that have all this in common are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Visit {
    /// The link's code.
    pub code: Code,
    /// The link's id, because a code may have had other links before.
    pub link: Uuid,
    /// In UTC.
    pub day: Date,
    /// The host of the page with the link on it.
    pub referrer: Cow<'static, str>,
}

impl Store {
    // ANCHOR: click_batch
    /// Adds these clicks to the counters: all of them, or none. No visit may be listed twice.
    pub async fn add_clicks(&self, visits: &[(Visit, i64)]) -> Result<(), Error> {
        let links: Vec<_> = visits.iter().map(|(visit, _)| visit.link).collect();
        let days: Vec<_> = visits.iter().map(|(visit, _)| visit.day).collect();
        // The links are locked first, in the order of their codes. So nobody deletes one meanwhile, and no two
        // processes wait for each other. A link that is gone already drops out.
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
            select id, day, referrer, clicks
            from alive
            join unnest($1::text[], $2::uuid[], $3::date[], $4::text[], $5::bigint[])
                as visit (visited, id, day, referrer, clicks) using (id)
            on conflict (link, day, referrer) do update
            set clicks = clicks.clicks + excluded.clicks
            "#,
        )
        .bind(visits.iter().map(|(visit, _)| visit.code.as_str()).collect::<Vec<_>>())
        .bind(&links)
        .bind(&days)
        .bind(visits.iter().map(|(visit, _)| &*visit.referrer).collect::<Vec<_>>())
        .bind(visits.iter().map(|(_, clicks)| *clicks).collect::<Vec<_>>());
        // When a link has too many hosts on a day, the largest stay, and the rest is added up as "other".
        let fold = sqlx::query(
            r#"
            with folded as (
                delete from clicks
                where ctid = any (array(
                    select ctid
                    from (
                        select ctid, count(*) over (partition by link, day),
                            row_number() over (partition by link, day order by clicks desc)
                        from clicks
                        where link = any ($1) and day = any ($2) and referrer <> 'other'
                    ) as ranked
                    where count > 2 * $3 and row_number > $3
                ))
                returning link, day, clicks
            )
            insert into clicks (link, day, referrer, clicks)
            select link, day, 'other', sum(clicks)
            from folded
            group by link, day
            on conflict (link, day, referrer) do update
            set clicks = clicks.clicks + excluded.clicks
            "#,
        );
        let fold = fold.bind(&links).bind(&days).bind(i64::from(MOST_REFERRERS));
        self.upkeep
            .transaction(async |connection| {
                add.execute(&mut *connection).await?;
                fold.execute(connection).await.map(drop)
            })
            .await
    }
    // ANCHOR_END: click_batch

    /// The statistics of a link, as clients see them: all clicks, the last year by day, and the largest hosts. Smaller
    /// hosts are added up as "other", so the clicks of all hosts add up to all clicks.
    pub async fn stats(&self, link: &Link) -> Result<Value, Error> {
        let stats = sqlx::query_scalar(
            r#"
            with days as (
                select day, sum(clicks)::bigint as clicks
                from clicks
                where link = $1
                group by day
                order by day desc limit 366
            ), ranked as (
                select referrer, sum(clicks) as n,
                    row_number() over (order by referrer = 'other', sum(clicks) desc) as rank
                from clicks
                where link = $1
                group by referrer
            ), hosts as (
                select case when rank > $3 then 'other' else referrer end as host, sum(n)::bigint as clicks
                from ranked
                group by host
            )
            select jsonb_build_object(
                'code', $2::text,
                'clicks', (select coalesce(sum(clicks), 0)::bigint from clicks where link = $1),
                'by_day', (select coalesce(jsonb_agg(days order by day), '[]') from days),
                'referrers', (select coalesce(jsonb_agg(hosts order by clicks desc, host), '[]') from hosts)
            )
            "#,
        );
        let stats = stats.bind(link.id).bind(&link.code).bind(i64::from(MOST_REFERRERS));
        self.calls.within(async |connection| stats.fetch_one(connection).await).await
    }
}
