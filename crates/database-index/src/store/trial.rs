//! What would the planner do with an index that is not there, or without one that is?

use sqlx::{AssertSqlSafe, PgConnection};

use super::{Store, planned};
use crate::{error::Result, error::code, index::Index, index::Kind, index::Name, query::Query};

/// A query that was seen, with the values of the last run, and how often.
pub type Statement = (&'static Query, Vec<String>, u64);

/// A transaction that is rolled back when this is dropped. Indexes that are built in it are seen by nobody else. Until it ends,
/// nobody writes; and from the first index on that it takes away, nobody reads either, since `drop index` locks the table for
/// itself alone. The extension hypopg does it without building or dropping, but it is not on every server.
#[derive(Debug)]
pub struct Trial(PgConnection);

impl Store {
    /// Begins a trial, when no index is being built: the two would wait for each other.
    pub async fn trial(&self) -> Result<Trial> {
        let mut trial = Trial(self.alone().await?);
        trial.say(include_str!("trial.sql")).await?;
        Ok(trial)
    }
}

impl Trial {
    // ANCHOR: trial
    /// Makes the index, for this trial only; whether this server can have it.
    pub async fn create(&mut self, name: &Name, index: &Index) -> Result<bool> {
        self.say("savepoint before").await?;
        let mut sql = index.statement("", name);
        if matches!(index.kind, Kind::Trigram | Kind::Gist) {
            sql = format!("create extension if not exists pg_trgm; {sql}");
        }
        let Err(error) = self.say(&sql).await else { return Ok(true) };
        self.put_back().await?;
        // The name is taken, by the same index for another query; or this server has no index of this kind.
        let cannot = ["42P07", "0A000", "42704", "58P01", "42501"].contains(&&*code(&error));
        if cannot { Ok(false) } else { Err(error.into()) }
    }

    /// Takes an index away, until it is put back or the trial ends.
    pub async fn hide(&mut self, name: &Name) -> Result<()> {
        self.say("savepoint before").await?;
        Ok(self.say(&format!(r#"drop index "{}""#, name.as_str())).await?)
    }

    /// Puts back what was taken away last.
    pub async fn put_back(&mut self) -> Result<()> {
        Ok(self.say("rollback to before").await?)
    }

    /// What the planner thinks that each of these costs.
    pub async fn costs(&mut self, statements: &[Statement]) -> Result<Vec<f64>> {
        let mut costs = Vec::new();
        for (query, values, _) in statements {
            let plan = planned(&mut self.0, "format json", query, values).await?;
            costs.push(plan.number("Total Cost"));
        }
        Ok(costs)
    }
    // ANCHOR_END: trial

    async fn say(&mut self, sql: &str) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.0).await.map(drop)
    }
}
