//! What is kept? Every SQL statement of the service is in this module.
//!
//! Invariant: a code has one owner at most. The primary key decides, and nothing else does.

mod clicks;
mod moves;

use std::time::Duration;

use edge::database::{Database, Limits};
use serde::Serialize;
use sqlx::migrate::Migrator;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::clicks::{MOST_REFERRERS, Visit};
use crate::{access::TokenHash, code::Code, error::Error, long_url::LongUrl};

/// The schema. `serve` runs it on every shard before the service starts.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For a call that a client waits for. It leaves room for an answer within a second.
pub const TIMEOUT: Duration = Duration::from_millis(700);
const CALLS: Limits = Limits { connections: 16, timeout: TIMEOUT, pause: TIMEOUT };
/// For clicks and the sweep, for which no client waits. They have connections of their own, so they take none from
/// calls.
const SLOW: Duration = Duration::from_secs(5);
const UPKEEP: Limits = Limits { connections: 3, timeout: SLOW, pause: SLOW };
/// For a reshard, before the service starts. The links that it moves may have very many clicks.
const MOVES: Limits = Limits { connections: 1, timeout: Duration::from_mins(10), pause: SLOW };

/// A link that asks for a code.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// The code that it wants.
    pub code: Code,
    /// Its id, which no other link has.
    pub id: Uuid,
    /// Where it leads.
    pub url: LongUrl,
    /// The hash of its edit token. A shared link has none.
    pub edit_token: Option<TokenHash>,
    /// How many seconds it lives, if not for ever.
    pub ttl: Option<i64>,
}

/// A row of `links`. Clients see all fields except those that are skipped.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Link {
    /// What it is found by.
    pub code: Code,
    /// Tells it apart from the links that had the code before, or will have it.
    #[serde(skip)]
    pub id: Uuid,
    /// Where it leads.
    pub url: String,
    /// The hash of its edit token. A link that several clients share has none.
    #[serde(skip)]
    pub edit_token: Option<TokenHash>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends, if it does.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// The seconds from the read to its end. Only the database's clock says what has expired, because the clocks of the
    /// processes in front of it may differ.
    #[serde(skip)]
    pub seconds_left: Option<f64>,
}

impl Link {
    /// Whether it had expired when it was read.
    pub fn is_expired(&self) -> bool {
        self.seconds_left.is_some_and(|seconds| seconds <= 0.0)
    }
}

/// One database.
#[derive(Clone, Debug)]
pub struct Store {
    calls: Database<Error>,
    upkeep: Database<Error>,
    moves: Database<Error>,
}

impl Store {
    /// Connects with the first query. Must be called within a tokio runtime; the error is a malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        let pool = |limits| Database::new(url, limits);
        Ok(Self { calls: pool(CALLS)?, upkeep: pool(UPKEEP)?, moves: pool(MOVES)? })
    }

    // ANCHOR: insert_links
    /// Inserts the links whose code is free, and returns those. If two links want one code, one of them gets it.
    pub async fn insert(&self, links: &[&NewLink]) -> Result<Vec<Link>, Error> {
        // All processes insert in the order of the codes, so that no two wait for each other.
        let insert = sqlx::query_as(
            r#"
            insert into links (code, id, url, edit_token, expires_at)
            select code, id, url, edit_token, now() + seconds * interval '1 second'
            from unnest($1::text[], $2::uuid[], $3::text[], $4::bytea[], $5::bigint[])
                as new (code, id, url, edit_token, seconds)
            order by code collate "C"
            on conflict (code) do nothing
            returning code, id, url, edit_token, created_at, expires_at,
                extract(epoch from expires_at - now())::float8 as seconds_left
            "#,
        )
        .bind(links.iter().map(|link| &link.code).collect::<Vec<_>>())
        .bind(links.iter().map(|link| link.id).collect::<Vec<_>>())
        .bind(links.iter().map(|link| link.url.as_str()).collect::<Vec<_>>())
        .bind(links.iter().map(|link| link.edit_token).collect::<Vec<_>>())
        .bind(links.iter().map(|link| link.ttl).collect::<Vec<_>>());
        self.calls.within(async |connection| insert.fetch_all(connection).await).await
    }
    // ANCHOR_END: insert_links

    /// The link, expired or not.
    pub async fn find(&self, code: &Code) -> Result<Option<Link>, Error> {
        let find = sqlx::query_as(
            r#"
            select code, id, url, edit_token, created_at, expires_at,
                extract(epoch from expires_at - now())::float8 as seconds_left
            from links
            where code = $1
            "#,
        );
        self.calls.within(async |it| find.bind(code).fetch_optional(it).await).await
    }

    /// Changes the fields that are given, unless the link has ended. The outer `None` keeps the expiry, the inner one
    /// removes it.
    pub async fn update(
        &self,
        link: &Link,
        url: Option<&LongUrl>,
        expires_in_seconds: Option<Option<i64>>,
    ) -> Result<u64, Error> {
        let update = sqlx::query(
            r#"
            update links
            set url = coalesce($3, url),
                expires_at = case when $4 then now() + $5 * interval '1 second' else expires_at end
            where code = $1 and id = $2 and (expires_at is null or expires_at > now())
            "#,
        );
        let update = update.bind(&link.code).bind(link.id).bind(url.map(LongUrl::as_str));
        let update = update.bind(expires_in_seconds.is_some()).bind(expires_in_seconds.flatten());
        self.calls.execute(update).await
    }

    /// Deletes the link, and returns how many rows there were. Its clicks stay for the sweep, since there may be too
    /// many for one statement.
    pub async fn delete(&self, link: &Link) -> Result<u64, Error> {
        let delete = sqlx::query("delete from links where code = $1 and id = $2");
        self.calls.execute(delete.bind(&link.code).bind(link.id)).await
    }

    // ANCHOR: sweep
    /// Deletes links that expired an hour ago, and clicks of links that are gone; returns how many rows there were.
    /// Each statement takes a thousand rows at most, so that it ends in time. If it timed out, the next sweep would
    /// take the same rows, and time out again.
    pub async fn sweep(&self) -> Result<u64, Error> {
        // `skip locked`: several processes sweep side by side, and none waits for a link that is being written to. The
        // next sweep finds that link.
        let links = r#"
            delete from links
            where code = any (array(
                select code
                from links
                where expires_at <= now() - interval '1 hour'
                order by expires_at
                limit 1000
                for update skip locked
            ))
        "#;
        let clicks = r#"
            delete from clicks
            where ctid = any (array(
                select clicks.ctid
                from clicks
                join (select id from deleted_links order by id limit 1000) as gone on id = link
                limit 1000
            ))
        "#;
        // A deleted link gets no more clicks. If it has none left, it is done.
        let done = r#"
            delete from deleted_links
            where id = any (array(select id from deleted_links order by id limit 1000))
                and not exists (select from clicks where link = id)
        "#;
        let mut swept = 0;
        for delete in [links, clicks, done] {
            swept += self.upkeep.execute(sqlx::query(delete)).await?;
        }
        Ok(swept)
    }
    // ANCHOR_END: sweep

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.calls.ping().await
    }
}
