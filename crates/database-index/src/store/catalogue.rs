//! Which indexes are there, how large are they, and how does one come and go while the table is in use?

use std::time::Duration;

use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::{OffsetDateTime, serde::rfc3339};
use tokio::time::sleep;

use super::Store;
use crate::error::{Error, Result, code};
use crate::index::{Index, Kind, Name};

/// Before a drop gives up, because somebody holds the table.
const LOCK_TIMEOUT: &str = "set lock_timeout = '2s'; set statement_timeout = '10s'";
/// Between two attempts to become the only one who builds or drops.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// The condition of a partial index.
    #[sqlx(rename = "condition")]
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Whether no two rows may have the same keys.
    pub unique: bool,
    /// Whether a constraint needs it.
    #[serde(skip)]
    pub of_constraint: bool,
    /// Whether queries may use it. An invalid one is not used, and is written to all the same.
    pub valid: bool,
    /// Whether somebody builds it now.
    pub building: bool,
    /// On disk.
    pub bytes: i64,
    /// How often it was used since the statistics were reset.
    pub scans: i64,
    /// When it was used last: PostgreSQL 16 and later.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub last_use: Option<OffsetDateTime>,
    /// Which part of it is empty, roughly: its size against that of its entries. For B-trees on columns.
    pub bloat: Option<f64>,
}

/// How far a build is.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Progress {
    /// What is done now.
    pub phase: String,
    /// Pages of the table that were read in this phase.
    pub blocks_done: i64,
    /// Of so many.
    pub blocks_total: i64,
}

impl Store {
    /// Every index of the table, by name.
    pub async fn indexes(&self) -> Result<Vec<Existing>> {
        let indexes = sqlx::query_as(INDEXES);
        let indexes = self.database.within(async |it| indexes.fetch_all(it).await).await;
        let mut indexes: Vec<Existing> = indexes?;
        // One that was dropped while the statement ran is still in its rows, but has no definition any more.
        indexes.retain(|it| !it.definition.is_empty());
        Ok(indexes)
    }

    /// How far the build of this index is, if it is under way.
    pub async fn progress(&self, name: &Name) -> Result<Option<Progress>> {
        let progress = "select phase, blocks_done, blocks_total
                        from pg_stat_progress_create_index
                        join pg_class on pg_class.oid = index_relid
                        where pg_class.relname = $1 and datname = current_database()";
        let progress = sqlx::query_as(progress).bind(name.as_str());
        self.database.within(async |it| progress.fetch_optional(it).await).await
    }

    /// A connection whose owner is the only one, in all processes, that builds or drops an index. Two concurrent builds on
    /// one table would wait for each other, and one of them would be ended as a deadlock. The lock is tried again and again: a
    /// statement that waits for it would itself be a transaction that the build has to wait for.
    pub(super) async fn alone(&self) -> sqlx::Result<PgConnection> {
        let mut connection = self.connect().await?;
        let lock = "select pg_try_advisory_lock(hashtext('indexes of users'))";
        while !sqlx::query_scalar(lock).fetch_one(&mut connection).await? {
            sleep(PAUSE).await;
        }
        Ok(connection)
    }

    // ANCHOR: build
    /// Builds the index while others read and write. What an earlier build of this name has left is taken away first, and
    /// also what this one leaves if it fails: an invalid index serves no query, and costs every write.
    pub async fn build(&self, name: &Name, index: &Index) -> sqlx::Result<()> {
        let mut alone = self.alone().await?;
        if index.kind == Kind::Trigram {
            sqlx::query("create extension if not exists pg_trgm").execute(&mut alone).await?;
        }
        drop_invalid(&mut alone, name).await?;
        let create = AssertSqlSafe(index.statement("concurrently", name));
        let built = sqlx::query(create).execute(&mut alone).await;
        if built.is_err() {
            // If we are cut off too, the next build of this name does it.
            let _ = drop_invalid(&mut alone, name).await;
        }
        let _ = alone.close().await;
        built.map(drop)
    }
    // ANCHOR_END: build

    /// Drops the index, which exists, while others read and write.
    pub async fn drop(&self, name: &Name) -> Result<()> {
        let mut alone = self.alone().await?;
        sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut alone).await?;
        let sql = format!(r#"drop index concurrently if exists "{}""#, name.as_str());
        let dropped = sqlx::query(AssertSqlSafe(sql)).execute(&mut alone).await;
        let _ = alone.close().await;
        match dropped {
            // A transaction that began before holds it up. It is invalid by now, and a second DELETE ends the work.
            Err(error) if code(&error).as_deref() == Some("57014") => Err(Error::BUSY),
            dropped => Ok(dropped.map(drop)?),
        }
    }
}

async fn drop_invalid(connection: &mut PgConnection, name: &Name) -> sqlx::Result<()> {
    let invalid = "select not indisvalid
                   from pg_index
                   join pg_class on pg_class.oid = indexrelid
                   where indrelid = 'users'::regclass and relname = $1";
    let invalid = sqlx::query_scalar(invalid).bind(name.as_str());
    if invalid.fetch_optional(&mut *connection).await? == Some(true) {
        let drop = format!(r#"drop index concurrently "{}""#, name.as_str());
        sqlx::query(AssertSqlSafe(drop)).execute(connection).await?;
    }
    Ok(())
}

/// A B-tree's entry has a head of 8 bytes and a pointer of 4, and begins at a multiple of 8. Pages are filled to 90 %.
/// The column `last_idx_scan` came with PostgreSQL 16.
const INDEXES: &str = r#"
    select
        class.relname as name,
        coalesce(pg_get_indexdef(class.oid, 0, true), '') as definition,
        pg_am.amname as kind,
        array(
            select coalesce(pg_get_indexdef(class.oid, n, true), '')
            from generate_series(1, pg_index.indnkeyatts) as n
        ) as keys,
        pg_get_expr(indpred, indrelid, true) as condition,
        indisunique as unique,
        exists (select from pg_constraint where conindid = class.oid and contype in ('p', 'u')) as of_constraint,
        indisvalid as valid,
        exists (
            select from pg_stat_progress_create_index
            where index_relid = class.oid and datname = current_database()
        ) as building,
        coalesce(pg_relation_size(class.oid), 0) as bytes,
        coalesce(idx_scan, 0) as scans,
        (to_jsonb(stats) ->> 'last_idx_scan')::timestamptz as last_use,
        case when amname = 'btree' then (
            select greatest(0, 1 - class.reltuples * (12 + 8 * ceil(sum(avg_width) / 8.0)) / 0.9
                / nullif(pg_relation_size(class.oid), 0))::float8
            from pg_attribute
            left join pg_stats on pg_stats.schemaname = stats.schemaname
                and pg_stats.tablename = stats.relname and pg_stats.attname = pg_attribute.attname
            where attrelid = class.oid
            having count(*) = count(avg_width) and class.reltuples >= 0
        ) end as bloat
    from pg_index
    join pg_class as class on class.oid = indexrelid
    join pg_am on pg_am.oid = class.relam
    left join pg_stat_user_indexes as stats on stats.indexrelid = class.oid
    where indrelid = 'users'::regclass
    order by class.relname
"#;
