//! What is kept? Every SQL statement of the service.

use std::time::Duration;

use edge::database::{Database, Limits};
use serde::Serialize;
use sqlx::{migrate::Migrator, query, query_as};
use time::{OffsetDateTime, serde::rfc3339};
use uuid::Uuid;

use crate::error::{Error, Result};

/// The schema. `lab` runs it before the service starts.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call of the database. It leaves room for an answer within the request's two seconds, but not for a slow audit.
const LIMITS: Limits = Limits {
    connections: 16,
    timeout: Duration::from_millis(1_500),
    pause: Duration::from_secs(1),
};

/// A row of `notes`.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Note {
    /// Ours.
    pub id: Uuid,
    /// Whose it is.
    pub owner: String,
    /// One line.
    pub text: String,
    /// When it was written down.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

/// The notes.
#[derive(Clone, Debug)]
pub struct Store(Database<Error>);

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> sqlx::Result<Self> {
        Ok(Self(Database::new(url, LIMITS)?))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    /// Keeps a note.
    pub async fn create(&self, owner: &str, text: &str) -> Result<Note> {
        let create = "insert into notes (id, owner, text) values ($1, $2, $3) \
                      returning id, owner, text, created_at";
        let create = query_as(create).bind(Uuid::now_v7()).bind(owner).bind(text);
        self.0.within(async |it| create.fetch_one(it).await).await
    }

    /// The newest hundred of somebody.
    pub async fn list(&self, owner: &str) -> Result<Vec<Note>> {
        let list = "select id, owner, text, created_at from notes where owner = $1 \
                    order by id desc limit 100";
        let list = query_as(list).bind(owner);
        self.0.within(async |it| list.fetch_all(it).await).await
    }

    /// A note of somebody. Others do not learn that it is there.
    pub async fn find(&self, owner: &str, id: Uuid) -> Result<Note> {
        let find = "select id, owner, text, created_at from notes where owner = $1 and id = $2";
        let find = query_as(find).bind(owner).bind(id);
        let note = self.0.within(async |it| find.fetch_optional(it).await).await?;
        note.ok_or(Error::NotFound)
    }

    /// Deletes a note of somebody, if it is there.
    pub async fn delete(&self, owner: &str, id: Uuid) -> Result<()> {
        let delete = query("delete from notes where owner = $1 and id = $2").bind(owner).bind(id);
        self.0.execute(delete).await.map(drop)
    }
}
