//! Which indexes are there, how large are they, and how does one come and go while the table is in use?

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use time::{OffsetDateTime, serde::rfc3339};
use tokio::time::sleep;

use super::Store;
use crate::{error::Result, index::Index, index::Kind, index::Name};

/// An index, as the catalogue has it.
#[derive(Clone, Debug, Default, Serialize, sqlx::FromRow)]
pub struct Existing {
    /// Its name.
    pub name: String,
    /// The statement that makes it.
    pub definition: String,
    /// `btree`, `gin`, …
    pub kind: String,
    /// In its order, as they are written.
    pub keys: Vec<String>,
    /// Carried along, not searched.
    pub include: Vec<String>,
    /// The condition of a partial index.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Whether no two rows may have the same keys.
    pub unique: bool,
    /// Whether a constraint needs it.
    #[serde(skip)]
    pub of_constraint: bool,
    /// Whether it is needed also if no query uses it: it keeps a rule, or deletions look there whether somebody refers to the
    /// row.
    #[serde(skip)]
    pub needed: bool,
    /// `building`, `ready`, or `invalid`: no query uses it, and it is written to all the same.
    pub state: String,
    /// How far a build is that is under way, in this process or in another.
    pub progress: Option<Value>,
    /// On disk.
    pub bytes: i64,
    /// How often it was used since the statistics were reset.
    pub scans: i64,
    /// When it was used last: PostgreSQL 16 and later.
    #[serde(with = "rfc3339::option")]
    pub last_use: Option<OffsetDateTime>,
    /// Which part of it is empty, roughly: its size against that of its entries. For B-trees on columns.
    pub bloat: Option<f64>,
}

impl Store {
    /// Every index of the table; those with fewer keys come first.
    pub async fn indexes(&self) -> Result<Vec<Existing>> {
        let indexes = sqlx::query_as(include_str!("indexes.sql"));
        self.database.within(async |it| indexes.fetch_all(it).await).await
    }

    /// A connection whose owner is the only one, in all processes, that builds or drops an index. Two concurrent builds on
    /// one table would wait for each other, and one of them would be ended as a deadlock. The lock is tried again and again: a
    /// statement that waits for it would itself be a transaction that the build has to wait for.
    pub(super) async fn alone(&self) -> sqlx::Result<PgConnection> {
        let mut connection = self.connect().await?;
        let lock = "select pg_try_advisory_lock(hashtext('indexes of users'))";
        while !sqlx::query_scalar(lock).fetch_one(&mut connection).await? {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(connection)
    }

    // ANCHOR: build
    /// Builds the index while others read and write. What an earlier build of this name has left is taken away first, and
    /// also what this one leaves if it fails: an invalid index serves no query, and costs every write.
    pub async fn build(&self, name: &Name, index: &Index) -> sqlx::Result<()> {
        let mut alone = self.alone().await?;
        if matches!(index.kind, Kind::Trigram | Kind::Gist) {
            sqlx::query("create extension if not exists pg_trgm").execute(&mut alone).await?;
        }
        // It may have become ready between the request and now.
        if drop_invalid(&mut alone, name).await?.is_some_and(|it| index.is_defined_by(&it)) {
            return Ok(());
        }
        let create = AssertSqlSafe(index.statement("concurrently", name));
        let built = sqlx::query(create).execute(&mut alone).await;
        if built.is_err() {
            // What broke may be the connection. If there is no other one, the next build of this name does it.
            drop(alone);
            if let Ok(mut alone) = self.alone().await {
                let _ = drop_invalid(&mut alone, name).await;
            }
        }
        built.map(drop)
    }
    // ANCHOR_END: build

    /// Drops the index while others read and write. It waits for transactions that began before; PostgreSQL goes on with it
    /// when the client has given up.
    pub async fn drop_index(&self, name: &Name) -> Result<()> {
        let mut alone = self.alone().await?;
        let sql = format!(r#"drop index concurrently if exists "{}""#, name.as_str());
        Ok(sqlx::query(AssertSqlSafe(sql)).execute(&mut alone).await.map(drop)?)
    }
}

/// Drops what a broken build has left. If there is a valid index of this name, it stays, and this is its definition.
async fn drop_invalid(connection: &mut PgConnection, name: &Name) -> sqlx::Result<Option<String>> {
    let named = sqlx::query_as(include_str!("named.sql")).bind(name.as_str());
    let named: Option<(bool, String)> = named.fetch_optional(&mut *connection).await?;
    if let Some((false, _)) = named {
        let drop = format!(r#"drop index concurrently "{}""#, name.as_str());
        sqlx::query(AssertSqlSafe(drop)).execute(connection).await?;
    }
    Ok(named.and_then(|(valid, definition)| valid.then_some(definition)))
}
