//! What is kept? Every SQL statement of the service is in this file.
//!
//! Invariant: a user changes in the transaction in which a trigger writes its invalidation down. Either both are there or
//! neither is, wherever the process dies.

use std::time::Duration;

use edge::database::{Database, Limits};
use sqlx::{FromRow, PgConnection, migrate::Migrator, types::Uuid};

use crate::{
    error::Error,
    user::{Email, Name, User, UserId},
    value::{UserJson, Users},
};

/// The schema. `serve` runs it before the service starts.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// A user that was just written.
#[derive(Debug, FromRow)]
pub struct Written {
    /// As it is now; as it was, if it was deleted.
    #[sqlx(flatten)]
    pub user: User,
    /// The database in which it was written, see [`Store::pending`].
    pub origin: Uuid,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// Twelve connections. When Redis is away every read comes here: few get through, and the others wait in order, no
    /// longer than one call may take. Then they get a 503, and not a place in an ever longer queue.
    readers: Database<Error>,
    /// Four connections, so that writers find one however many readers there are.
    writers: Database<Error>,
    /// For the watcher alone: it must get through when all others are taken.
    watcher: Database<Error>,
}

impl Store {
    /// Connects with the first query. The error is a malformed URL.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, sqlx::Error> {
        let pool =
            |connections| Database::new(url, Limits { connections, timeout, pause: timeout });
        Ok(Self { readers: pool(12)?, writers: pool(4)?, watcher: pool(1)? })
    }

    /// The user, if there is one.
    pub async fn find(&self, id: UserId) -> Result<Option<UserJson>, Error> {
        Ok(self.find_many(&[id]).await?.remove(&id).flatten())
    }

    /// Each of these users, or `None` if nobody has the id.
    pub async fn find_many(&self, ids: &[UserId]) -> Result<Users, Error> {
        let find = sqlx::query_as(
            r#"
            select id, name, email, version, created_at, updated_at
            from users
            where id = any($1)
            "#,
        );
        let find = find.bind(ids);
        let found: Vec<User> = self.readers.within(async |it| find.fetch_all(it).await).await?;
        let mut users: Users = ids.iter().map(|id| (*id, None)).collect();
        for user in found {
            users.insert(user.id, Some(UserJson::of(&user).map_err(Error::internal)?));
        }
        Ok(users)
    }

    /// Inserts a user. If somebody asked for its id before, its absence is cached, and the trigger invalidates that
    /// too.
    pub async fn insert(&self, name: &Name, email: &Email) -> Result<Written, Error> {
        let insert = sqlx::query_as(
            r#"
            insert into users (name, email, email_key)
            values ($1, $2, $3)
            returning id, name, email, version, created_at, updated_at,
                (select id from origin) as origin
            "#,
        );
        let insert = insert.bind(name.as_str()).bind(email.as_str()).bind(email.key());
        self.writers.within(async |it| insert.fetch_one(it).await).await
    }

    // ANCHOR: update_user
    /// Changes the user if it has one of these versions, or any version if none is named, and returns it. When two
    /// clients have read the same version, the second waits for the first one's lock on the row, and then finds another
    /// version.
    pub async fn update(
        &self,
        id: UserId,
        versions: Option<&[i64]>,
        name: &Name,
        email: &Email,
    ) -> Result<Option<Written>, Error> {
        let update = sqlx::query_as(
            r#"
            update users
            set name = $2, email = $3, email_key = $4, version = version + 1, updated_at = now()
            where id = $1 and ($5::bigint[] is null or version = any($5))
            returning id, name, email, version, created_at, updated_at,
                (select id from origin) as origin
            "#,
        );
        let update = update.bind(id).bind(name.as_str()).bind(email.as_str()).bind(email.key());
        let update = update.bind(versions);
        self.writers.within(async |it| update.fetch_optional(it).await).await
    }
    // ANCHOR_END: update_user

    /// Deletes the user, and returns it if there was one.
    pub async fn delete(&self, id: UserId) -> Result<Option<Written>, Error> {
        let delete = sqlx::query_as(
            r#"
            delete from users
            where id = $1
            returning id, name, email, version, created_at, updated_at,
                (select id from origin) as origin
            "#,
        );
        let delete = delete.bind(id);
        self.writers.within(async |it| delete.fetch_optional(it).await).await
    }

    /// Deletes the invalidations of this user, which Redis has forgotten. Earlier versions were committed before this
    /// one, so their invalidations are carried out too.
    pub async fn carried_out(&self, user: &User) -> Result<(), Error> {
        let delete = "delete from invalidations where user_id = $1 and version <= $2";
        let delete = sqlx::query(delete).bind(user.id).bind(user.version);
        self.writers.within(async |it| delete.execute(it).await).await.map(drop)
    }

    /// Which database this is, and the invalidations that are to be carried out, the oldest first.
    pub async fn pending(&self, limit: u32) -> Result<(Uuid, Vec<(i64, UserId)>), Error> {
        let origin = sqlx::query_scalar("select id from origin");
        let pending = sqlx::query_as("select id, user_id from invalidations order by id limit $1");
        let pending = pending.bind(i64::from(limit));
        let both = async |it: &mut PgConnection| {
            Ok((origin.fetch_one(&mut *it).await?, pending.fetch_all(it).await?))
        };
        self.watcher.within(both).await
    }

    /// Deletes invalidations that the watcher has carried out. It has its own connection: behind a queue of writers it
    /// would be late, and this process would stop believing a Redis that is well.
    pub async fn all_carried_out(&self, invalidations: &[i64]) -> Result<(), Error> {
        let delete = sqlx::query("delete from invalidations where id = any($1)");
        let delete = delete.bind(invalidations);
        self.watcher.within(async |it| delete.execute(it).await).await.map(drop)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.readers.ping().await
    }
}
