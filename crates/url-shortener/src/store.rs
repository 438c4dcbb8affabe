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

/// The schema. Whoever starts the service has run it on every shard.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For a call that a client waits for. It leaves room for an answer within a second.
pub const TIMEOUT: Duration = Duration::from_millis(700);
const CALLS: Limits = Limits { connections: 16, timeout: TIMEOUT, pause: TIMEOUT };
/// For what no client waits for: clicks and the sweep. Connections of its own, so that it takes none from calls.
const SLOW: Duration = Duration::from_secs(5);
const UPKEEP: Limits = Limits { connections: 3, timeout: SLOW, pause: SLOW };
/// For a move before the service starts, of links with as many clicks as they have.
const MOVES: Limits = Limits { connections: 1, timeout: Duration::from_mins(10), pause: SLOW };

/// A link that asks for a code.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// The code that it wants.
    pub code: Code,
    /// Its own; nobody else has it.
    pub id: Uuid,
    /// Where it leads.
    pub url: LongUrl,
    /// The hash of its edit token. A shared link has none.
    pub edit_token: Option<TokenHash>,
    /// How many seconds it lives, if not for ever.
    pub ttl: Option<i64>,
}

/// A row of `links`. Clients see what is not skipped.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Link {
    /// What it is found by.
    pub code: Code,
    /// Tells it apart from the links that had the code before, or will have it.
    #[serde(skip)]
    pub id: Uuid,
    /// Where it leads.
    pub url: String,
    /// The hash of its edit token. A link that everybody gets who asks for this URL has none.
    #[serde(skip)]
    pub edit_token: Option<TokenHash>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends, if it does.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// Until then, when it was read. Only the database's clock says what has expired: the clocks of the processes in
    /// front of it may differ.
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
    /// Connects when it is first asked something. Must be called within a tokio runtime; the error is a
    /// malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        let pool = |limits| Database::new(url, limits);
        Ok(Self { calls: pool(CALLS)?, upkeep: pool(UPKEEP)?, moves: pool(MOVES)? })
    }

    // ANCHOR: insert_links
    /// Inserts those whose code is free, and returns them. Of two that want one code, one gets it.
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
        let find = find.bind(code);
        self.calls.within(async |connection| find.fetch_optional(connection).await).await
    }

    /// Changes what is given, unless the link has ended. The outer `None` keeps the expiry, the inner one removes it.
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

    /// Deletes the link; how many there were. Its clicks stay for the sweep: there may be too many.
    pub async fn delete(&self, link: &Link) -> Result<u64, Error> {
        let delete = sqlx::query("delete from links where code = $1 and id = $2");
        self.calls.execute(delete.bind(&link.code).bind(link.id)).await
    }

    // ANCHOR: sweep
    /// Deletes links that expired an hour ago, and clicks of links that are gone; how many rows there were. At most a
    /// thousand of each, so that each statement ends in time: one that does not would never get further.
    pub async fn sweep(&self) -> Result<u64, Error> {
        // `skip locked`: several processes sweep side by side, and none waits for a link that is being written to;
        // it is still there the next time.
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
        // A link that is gone gets no more clicks, so one that has none is done.
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
