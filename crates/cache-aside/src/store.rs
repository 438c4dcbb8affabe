//! What is kept? Every SQL statement of the service is in this file.
//!
//! Invariant: a user changes in the same statement in which its invalidation is written down. Either both
//! are there or neither is, wherever the process dies.

use std::time::Duration;

use edge::database::{Database, Limits};
use sqlx::{FromRow, PgConnection, migrate::Migrator};

use crate::{
    error::Error,
    user::{Email, Name, User, UserId},
};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// One for each of PostgreSQL's cores, and some to wait for the disk. More would make it slower.
const CONNECTIONS: u32 = 16;

/// A user that was just written, and the invalidation that went with it.
#[derive(Debug, FromRow)]
pub struct Written {
    /// As it is now; as it was, if it was deleted.
    #[sqlx(flatten)]
    pub user: User,
    /// The row of `invalidations`.
    pub invalidation: i64,
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
    database: Database<Error>,
    /// For the watcher alone: it must get through when all others are taken.
    reserved: Database<Error>,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, sqlx::Error> {
        let limits = Limits { connections: CONNECTIONS, timeout, pause: timeout };
        Ok(Self {
            database: Database::new(url, limits)?,
            reserved: Database::new(url, Limits { connections: 1, ..limits })?,
        })
    }

    /// The statement behind [`find`](Self::find), for those who measure it.
    pub const FIND: &str = r#"
        select id, name, email, created_at, updated_at
        from users
        where id = $1
    "#;

    /// The user, if there is one.
    pub async fn find(&self, id: UserId) -> Result<Option<User>, Error> {
        let find = async |connection: &mut PgConnection| {
            sqlx::query_as(Self::FIND).bind(id).fetch_optional(connection).await
        };
        self.database.within(find).await
    }

    /// Those of them that there are, in no order.
    pub async fn find_many(&self, ids: &[UserId]) -> Result<Vec<User>, Error> {
        let find = async |connection: &mut PgConnection| {
            sqlx::query_as(
                r#"
                select id, name, email, created_at, updated_at
                from users
                where id = any($1)
                "#,
            )
            .bind(ids)
            .fetch_all(connection)
            .await
        };
        self.database.within(find).await
    }

    /// A new user. Its id may have been asked for before, so that its absence is cached: that is to be
    /// invalidated too.
    pub async fn insert(&self, name: &Name, email: &Email) -> Result<Written, Error> {
        let insert = async |connection: &mut PgConnection| {
            sqlx::query_as(
                r#"
                with changed as (
                    insert into users (name, email)
                    values ($1, $2)
                    returning id, name, email, created_at, updated_at
                ), pending as (
                    insert into invalidations (user_id)
                    select id from changed
                    returning id as invalidation
                )
                select id, name, email, created_at, updated_at, invalidation
                from changed, pending
                "#,
            )
            .bind(name.as_str())
            .bind(email.as_str())
            .fetch_one(connection)
            .await
        };
        self.database.within(insert).await
    }

    // ANCHOR: update_user
    /// The user as it is from now on, if there is one.
    pub async fn update(
        &self,
        id: UserId,
        name: &Name,
        email: &Email,
    ) -> Result<Option<Written>, Error> {
        let update = async |connection: &mut PgConnection| {
            sqlx::query_as(
                r#"
                with changed as (
                    update users
                    set name = $2, email = $3, updated_at = now()
                    where id = $1
                    returning id, name, email, created_at, updated_at
                ), pending as (
                    insert into invalidations (user_id)
                    select id from changed
                    returning id as invalidation
                )
                select id, name, email, created_at, updated_at, invalidation
                from changed, pending
                "#,
            )
            .bind(id)
            .bind(name.as_str())
            .bind(email.as_str())
            .fetch_optional(connection)
            .await
        };
        self.database.within(update).await
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
                    returning id, name, email, created_at, updated_at
                ), pending as (
                    insert into invalidations (user_id)
                    select id from changed
                    returning id as invalidation
                )
                select id, name, email, created_at, updated_at, invalidation
                from changed, pending
                "#,
            )
            .bind(id)
            .fetch_optional(connection)
            .await
        };
        self.database.within(delete).await
    }

    /// Invalidations that are to be carried out, the oldest first.
    pub async fn pending(&self, limit: u32) -> Result<Vec<Pending>, Error> {
        let pending = async |connection: &mut PgConnection| {
            sqlx::query_as("select id, user_id from invalidations order by id limit $1")
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await
        };
        self.reserved.within(pending).await
    }

    /// Redis has forgotten this user: the writer says so.
    pub async fn carried_out(&self, invalidation: i64) -> Result<(), Error> {
        Self::settle(&self.database, &[invalidation]).await
    }

    /// Redis has forgotten these users: the watcher says so. Not in the queue behind all writers, or many of
    /// them would end this process' trust in a Redis that is well.
    pub async fn all_carried_out(&self, invalidations: &[i64]) -> Result<(), Error> {
        Self::settle(&self.reserved, invalidations).await
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
        self.database.ping().await
    }
}
