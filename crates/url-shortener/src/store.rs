//! What is kept? Every SQL statement of the service is in this module.
//!
//! Invariant: a code has one owner at most; the primary key decides, nothing else does.

mod clicks;
mod moves;

use std::time::Duration;

use edge::database::{Database, Limits};
use sqlx::migrate::Migrator;
use time::OffsetDateTime;

pub use self::{
    clicks::{Sum, Visit},
    moves::Cargo,
};
use crate::{code::Code, error::Error};

/// The schema. Whoever starts the service has run it on every shard.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call. Leaves room for an answer within a second.
const TIMEOUT: Duration = Duration::from_millis(700);
const LIMITS: Limits = Limits { connections: 16, timeout: TIMEOUT, pause: TIMEOUT };

/// A row of `links`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Link {
    /// What it is found by.
    pub code: Code,
    /// Where it leads.
    pub url: String,
    /// Whether everyone who asks for the same URL gets it.
    pub shared: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends, if it does.
    pub expires_at: Option<OffsetDateTime>,
    /// From the moment at which it was read. The database's clock alone says what has expired; those of
    /// the processes in front of it may differ.
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
    database: Database<Error>,
}

impl Store {
    /// Connects when it is first asked something. Must be called within a tokio runtime; the error is a
    /// malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        Ok(Self { database: Database::new(url, LIMITS)? })
    }

    // ANCHOR: insert_link
    /// A new link, unless the code has an owner: then there is no row.
    pub(crate) const INSERT: &str = r#"
        insert into links (code, url, shared, expires_at)
        values ($1, $2, $3, now() + $4::integer * interval '1 second')
        on conflict (code) do nothing
        returning
            code,
            url,
            shared,
            created_at,
            expires_at,
            extract(epoch from expires_at - now())::float8 as seconds_left
    "#;

    /// Makes the link, or returns `None` if the code has an owner, who may have expired.
    pub async fn insert(
        &self,
        code: &Code,
        url: &str,
        shared: bool,
        expires_in_seconds: Option<i32>,
    ) -> Result<Option<Link>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(Self::INSERT)
                    .bind(code)
                    .bind(url)
                    .bind(shared)
                    .bind(expires_in_seconds)
                    .fetch_optional(connection)
                    .await
            })
            .await
    }
    // ANCHOR_END: insert_link

    /// The link, expired or not.
    pub async fn find(&self, code: &Code) -> Result<Option<Link>, Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                select
                    code,
                    url,
                    shared,
                    created_at,
                    expires_at,
                    extract(epoch from expires_at - now())::float8 as seconds_left
                from links
                where code = $1
                "#,
                )
                .bind(code)
                .fetch_optional(connection)
                .await
            })
            .await
    }

    /// Deletes the link with its clicks; whether there was one.
    pub async fn delete(&self, code: &Code) -> Result<bool, Error> {
        let deleted = self
            .database
            .within(async |connection| {
                sqlx::query("delete from links where code = $1")
                    .bind(code)
                    .execute(connection)
                    .await
            })
            .await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// Deletes the link with its clicks if it has expired, so that its code is free.
    pub async fn delete_if_expired(&self, code: &Code) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query("delete from links where code = $1 and expires_at <= now()")
                    .bind(code)
                    .execute(connection)
                    .await
            })
            .await?;
        Ok(())
    }

    /// Deletes up to `limit` links that expired longer than this ago; how many there were.
    pub async fn sweep(&self, expired_for: Duration, limit: u32) -> Result<u64, Error> {
        let swept = self
            .database
            .within(async |connection| {
                // `skip locked`: several processes sweep side by side, and none waits for a link that
                // is being written to; it is still there the next time.
                sqlx::query(
                    r#"
                    delete from links
                    where code in (
                        select code
                        from links
                        where expires_at <= now() - $1::float8 * interval '1 second'
                        order by expires_at
                        limit $2
                        for update skip locked
                    )
                    "#,
                )
                .bind(expired_for.as_secs_f64())
                .bind(i64::from(limit))
                .execute(connection)
                .await
            })
            .await?;
        Ok(swept.rows_affected())
    }

    /// The next number of the sequence: below 62⁷, and given to nobody else.
    pub async fn next_number(&self) -> Result<u64, Error> {
        let number: i64 = self
            .database
            .within(async |connection| {
                sqlx::query_scalar("select nextval('code_numbers')").fetch_one(connection).await
            })
            .await?;
        u64::try_from(number).map_err(Error::internal)
    }

    /// The key of the permutation: the one proposed if it is the first, for ever after that one.
    pub async fn permutation_key(&self, proposed: [u8; 16]) -> Result<[u8; 16], Error> {
        self.database
            .within(async |connection| {
                sqlx::query("insert into permutation_key (key) values ($1) on conflict do nothing")
                    .bind(proposed)
                    .execute(&mut *connection)
                    .await?;
                sqlx::query_scalar("select key from permutation_key").fetch_one(connection).await
            })
            .await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }
}
