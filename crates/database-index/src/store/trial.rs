//! What would the planner do with an index that is not there, or without one that is?

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Store, planned};
use crate::error::Result;
use crate::index::{Index, Kind, Name};
use crate::query::{Query, Value};

/// A transaction that is rolled back. Indexes that are built in it are seen by nobody else.
///
/// The extension hypopg, where it is, only tells the planner that there is an index. Otherwise it is built, and that build
/// blocks writes.
#[derive(Debug)]
pub struct Trial {
    connection: PgConnection,
    /// Whether hypopg is there.
    pub hypothetical: bool,
}

/// An index of a trial.
#[derive(Clone, Debug)]
pub struct Tried {
    name: Name,
    /// Its number, if hypopg made it.
    id: Option<sqlx::postgres::types::Oid>,
}

impl Store {
    /// Begins a trial, when no index is being built: the two would wait for each other.
    pub async fn trial(&self) -> Result<Trial> {
        let mut connection = self.alone().await?;
        let is_there = "select exists (select from pg_available_extensions where name = 'hypopg')";
        let mut hypothetical = sqlx::query_scalar(is_there).fetch_one(&mut connection).await?;
        if hypothetical {
            // Only a superuser may create it.
            let create = sqlx::query("create extension if not exists hypopg");
            hypothetical = create.execute(&mut connection).await.is_ok();
        }
        let begin =
            "begin; set local lock_timeout = '2s'; set local max_parallel_workers_per_gather = 0";
        sqlx::raw_sql(begin).execute(&mut connection).await?;
        Ok(Trial { connection, hypothetical })
    }
}

impl Trial {
    // ANCHOR: trial
    /// Makes the index, for this trial only. Nothing, if this server cannot have it.
    pub async fn create(&mut self, name: Name, index: &Index) -> Result<Option<Tried>> {
        self.say("savepoint before").await?;
        let sql = index.statement("", &name);
        let made = if self.hypothetical && !matches!(index.kind, Kind::Gin | Kind::Trigram) {
            let create = "select indexrelid from hypopg_create_index($1)";
            let create = sqlx::query_scalar(create).bind(sql);
            create.fetch_one(&mut self.connection).await.map(Some)
        } else {
            if index.kind == Kind::Trigram {
                self.say("create extension if not exists pg_trgm").await.ok();
            }
            sqlx::query(AssertSqlSafe(sql)).execute(&mut self.connection).await.map(|_| None)
        };
        match made {
            Ok(id) => Ok(Some(Tried { name, id })),
            Err(error) if error.as_database_error().is_some() => {
                tracing::debug!(%error, "an index is not tried");
                self.say("rollback to before").await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes an index away, until it is put back or the trial ends.
    pub async fn hide(&mut self, tried: &Tried) -> Result<()> {
        self.say("savepoint before").await?;
        match tried.id {
            Some(id) => {
                let drop = sqlx::query("select hypopg_drop_index($1)").bind(id);
                drop.execute(&mut self.connection).await?;
            }
            None => self.say(&format!(r#"drop index "{}""#, tried.name.as_str())).await?,
        }
        Ok(())
    }
    // ANCHOR_END: trial

    /// Puts back what was taken away last. hypopg knows no savepoints: it makes the index anew.
    pub async fn put_back(&mut self, tried: Tried, index: Option<&Index>) -> Result<()> {
        self.say("rollback to before").await?;
        if let Some(index) = index.filter(|_| tried.id.is_some()) {
            self.create(tried.name, index).await?;
        }
        Ok(())
    }

    /// What the planner thinks that this costs.
    pub async fn cost(&mut self, query: &Query, values: &[Value]) -> Result<f64> {
        let sql = format!("explain (format json) {}", query.sql);
        Ok(planned(&mut self.connection, &sql, values).await?.cost())
    }

    /// Undoes everything.
    pub async fn end(mut self) -> Result<()> {
        self.say("rollback").await?;
        Ok(self.connection.close().await?)
    }

    async fn say(&mut self, sql: &str) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection).await?;
        Ok(())
    }
}

impl Tried {
    /// An index that is there.
    pub fn existing(name: Name) -> Self {
        Self { name, id: None }
    }
}
