//! What is kept? Every SQL statement of the service is in this file.
//!
//! Invariant: a user changes in the same statement in which its invalidation is written down. Either both are there or
//! neither is, wherever the process dies.

use std::time::Duration;

use edge::database::{Database, Limits};
use sqlx::{FromRow, PgConnection, migrate::Migrator};

use crate::{
    error::Error,
    user::{Email, IfMatch, Name, User, UserId},
    value::{UserJson, Users},
};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// Readers at once. When Redis is away every read comes here: few get through, and the others wait in order for as long
/// as one call may take. Then they get a 503, not a place in an ever longer queue, and the database goes on doing what
/// it can.
const READERS: u32 = 12;
/// Changes at once. However many read, they find a connection.
const WRITERS: u32 = 4;

/// A user that was just written, and the invalidation that went with it.
#[derive(Debug, FromRow)]
pub struct Written {
    /// As it is now; as it was, if it was deleted.
    #[sqlx(flatten)]
    pub user: User,
    /// The row of `invalidations`.
    pub invalidation: i64,
    /// The database in which this happened, see [`Store::pending`].
    pub origin: Option<String>,
}

/// An invalidation that nobody has carried out yet.
#[derive(Debug, FromRow)]
pub struct Pending {
    /// The row of `invalidations`.
    pub id: i64,
    /// Whom Redis has to forget.
    pub user_id: UserId,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    readers: Database<Error>,
    writers: Database<Error>,
    /// For the watcher alone: it must get through when all others are taken.
    watcher: Database<Error>,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, sqlx::Error> {
        let pool =
            |connections| Database::new(url, Limits { connections, timeout, pause: timeout });
        Ok(Self { readers: pool(READERS)?, writers: pool(WRITERS)?, watcher: pool(1)? })
    }

    /// The user, if there is one.
    pub async fn find(&self, id: UserId) -> Result<Option<UserJson>, Error> {
        Ok(self.find_many(&[id]).await?.remove(&id).flatten())
    }

    /// Each of these users, or the news that there is none.
    pub async fn find_many(&self, ids: &[UserId]) -> Result<Users, Error> {
        let find = async |connection: &mut PgConnection| {
            sqlx::query_as(
                r#"
                select id, name, email, version, created_at, updated_at
                from users
                where id = any($1)
                "#,
            )
            .bind(ids)
            .fetch_all(connection)
            .await
        };
        let found: Vec<User> = self.readers.within(find).await?;
        let mut users: Users = ids.iter().map(|id| (*id, None)).collect();
        for user in found {
            users.insert(user.id, Some(UserJson::of(&user).map_err(Error::internal)?));
        }
        Ok(users)
    }

    /// A new user. Its id may have been asked for before, so that its absence is cached: that is invalidated too.
    pub async fn insert(&self, name: &Name, email: &Email) -> Result<Written, Error> {
        let insert = async |connection: &mut PgConnection| {
            sqlx::query_as(
                r#"
                with changed as (
                    insert into users (name, email, email_key)
                    values ($1, $2, $3)
                    returning id, name, email, version, created_at, updated_at
                ), pending as (
                    insert into invalidations (user_id)
                    select id from changed
                    returning id as invalidation
                )
                select id, name, email, version, created_at, updated_at, invalidation,
                    (select id from origin) as origin
                from changed, pending
                "#,
            )
            .bind(name.as_str())
            .bind(email.as_str())
            .bind(email.key())
            .fetch_one(connection)
            .await
        };
        self.writers.within(insert).await
    }

    // ANCHOR: update_user
    /// The user as it is from now on, if there is one of these versions. Two clients that have read the same version
    /// are two updates of one row: the second waits for the first, and then finds another version.
    pub async fn update(
        &self,
        id: UserId,
        versions: &IfMatch,
        name: &Name,
        email: &Email,
    ) -> Result<Option<Written>, Error> {
        let versions = match versions {
            IfMatch::Any => None,
            IfMatch::Versions(versions) => Some(versions),
        };
        let update = async |connection: &mut PgConnection| {
            sqlx::query_as(
                r#"
                with changed as (
                    update users
                    set name = $2, email = $3, email_key = $4, version = version + 1,
                        updated_at = now()
                    where id = $1 and ($5::bigint[] is null or version = any($5))
                    returning id, name, email, version, created_at, updated_at
                ), pending as (
                    insert into invalidations (user_id)
                    select id from changed
                    returning id as invalidation
                )
                select id, name, email, version, created_at, updated_at, invalidation,
                    (select id from origin) as origin
                from changed, pending
                "#,
            )
            .bind(id)
            .bind(name.as_str())
            .bind(email.as_str())
            .bind(email.key())
            .bind(versions)
            .fetch_optional(connection)
            .await
        };
        self.writers.within(update).await
    }
    // ANCHOR_END: update_user

    /// The user that is no more, if there was one.
    pub async fn delete(&self, id: UserId) -> Result<Option<Written>, Error> {
        let delete = async |connection: &mut PgConnection| {
            sqlx::query_as(
                r#"
                with changed as (
                    delete from users
                    where id = $1
                    returning id, name, email, version, created_at, updated_at
                ), pending as (
                    insert into invalidations (user_id)
                    select id from changed
                    returning id as invalidation
                )
                select id, name, email, version, created_at, updated_at, invalidation,
                    (select id from origin) as origin
                from changed, pending
                "#,
            )
            .bind(id)
            .fetch_optional(connection)
            .await
        };
        self.writers.within(delete).await
    }

    /// Which database this is, and the invalidations that are to be carried out, the oldest first.
    pub async fn pending(&self, limit: u32) -> Result<(String, Vec<Pending>), Error> {
        let pending = async |connection: &mut PgConnection| {
            let origin = "select id from origin";
            let mut found = sqlx::query_scalar(origin).fetch_optional(&mut *connection).await?;
            if found.is_none() {
                // This database is new. Of several processes, one makes the row.
                sqlx::query("insert into origin default values on conflict do nothing")
                    .execute(&mut *connection)
                    .await?;
                found = sqlx::query_scalar(origin).fetch_optional(&mut *connection).await?;
            }
            let pending =
                sqlx::query_as("select id, user_id from invalidations order by id limit $1")
                    .bind(i64::from(limit))
                    .fetch_all(connection)
                    .await?;
            Ok((found.ok_or(sqlx::Error::RowNotFound)?, pending))
        };
        self.watcher.within(pending).await
    }

    /// Redis has forgotten this user: the writer says so.
    pub async fn carried_out(&self, invalidation: i64) -> Result<(), Error> {
        Self::settle(&self.writers, &[invalidation]).await
    }

    /// Redis has forgotten these users: the watcher says so. Not in the queue behind all writers, or many of
    /// them would end this process' trust in a Redis that is well.
    pub async fn all_carried_out(&self, invalidations: &[i64]) -> Result<(), Error> {
        Self::settle(&self.watcher, invalidations).await
    }

    async fn settle(database: &Database<Error>, invalidations: &[i64]) -> Result<(), Error> {
        let delete = async |connection: &mut PgConnection| {
            sqlx::query("delete from invalidations where id = any($1)")
                .bind(invalidations)
                .execute(connection)
                .await
        };
        database.within(delete).await.map(|_| ())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.readers.ping().await
    }
}
