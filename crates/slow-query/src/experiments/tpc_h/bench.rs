//! Runs the queries under some changes, for their pages and for their rows.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::queries::{Change, How, QUERIES};
use crate::store::{execute, explain_with, values};
use crate::{error::code, plan::Pasted, tally::Tally};

/// What one query did.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Pages of tables, indexes and temporary files; none if it was ended.
    pub pages: f64,
    /// Milliseconds; the limit if it was ended.
    pub milliseconds: f64,
    /// Whether its plan uses the index of a primary key.
    pub by_key: bool,
    /// Whether the time limit ended it.
    pub ended: bool,
}

/// Pages and milliseconds of all.
pub fn total<'a>(runs: impl IntoIterator<Item = &'a Run>) -> (f64, f64) {
    let add = |(pages, time): (f64, f64), run: &Run| (pages + run.pages, time + run.milliseconds);
    runs.into_iter().fold((0.0, 0.0), add)
}

/// A session, and what it has measured.
#[derive(Debug)]
pub struct Bench {
    connection: PgConnection,
    queries: Vec<String>,
    limit: u32,
    /// By settings and plan.
    known: HashMap<String, Run>,
}

impl Bench {
    /// On these tables, which have this scale.
    pub fn new(connection: PgConnection, scale: &str, limit: u32) -> Self {
        // The specification divides a share of the stock by the scale.
        let queries = QUERIES.iter().map(|query| query.sql.replace(":scale", scale)).collect();
        Self { connection, queries, limit, known: HashMap::new() }
    }

    /// What all queries do under these changes, which are rolled back. A query that has the plan of an earlier run does what it did
    /// then, so it is not run again.
    pub async fn measure(&mut self, changes: &[Change]) -> anyhow::Result<Vec<Run>> {
        let texts = self.texts(changes);
        let mut tx = self.connection.begin().await?;
        let settings = apply(&mut tx, changes).await?;
        let mut runs = Vec::new();
        for sql in texts {
            let plan = explain_with(&mut tx, "costs", &sql).await?.to_string();
            let key = format!("{settings} {plan}");
            let run = match self.known.get(&key) {
                Some(run) => *run,
                None => run(&mut tx, &sql, self.limit, plan.contains("_pkey")).await?,
            };
            self.known.insert(key, run);
            runs.push(run);
        }
        tx.rollback().await?;
        Ok(runs)
    }

    /// The rows of the queries with these numbers under these changes; nothing for one that was ended.
    pub async fn rows(
        &mut self,
        changes: &[Change],
        numbers: impl Iterator<Item = usize>,
    ) -> anyhow::Result<Vec<Option<Tally>>> {
        let texts = self.texts(changes);
        let mut tx = self.connection.begin().await?;
        apply(&mut tx, changes).await?;
        let mut tallies = Vec::new();
        for number in numbers {
            let mut point = limited(&mut tx, self.limit).await?;
            let tally = tally(&mut point, &texts[number - 1], QUERIES[number - 1].ordered).await;
            tallies.push(finished(tally)?);
            point.rollback().await?;
        }
        tx.rollback().await?;
        Ok(tallies)
    }

    /// The text of each query under these changes.
    fn texts(&self, changes: &[Change]) -> Vec<String> {
        let mut texts = self.queries.clone();
        for change in changes {
            if let How::Rewrite(number, sql) = change.how {
                sql.clone_into(&mut texts[number - 1]);
            }
        }
        texts
    }
}

type Transaction<'a> = sqlx::Transaction<'a, sqlx::Postgres>;

/// Makes the indexes and the settings; says which settings.
async fn apply(tx: &mut PgConnection, changes: &[Change]) -> sqlx::Result<String> {
    let mut settings = String::new();
    execute(tx, include_str!("../../store/session.sql")).await?;
    for change in changes {
        match change.how {
            How::Index(columns) => execute(tx, &format!("create index on {columns}")).await?,
            How::Setting(setting) => {
                execute(tx, &format!("set local {setting}")).await?;
                settings += setting;
            }
            How::Rewrite(..) => {}
        }
    }
    Ok(settings)
}

/// A part of a transaction that is ended after this many milliseconds.
async fn limited(tx: &mut PgConnection, limit: u32) -> sqlx::Result<Transaction<'_>> {
    let mut point = tx.begin().await?;
    execute(&mut point, &format!("set local statement_timeout = {limit}")).await?;
    Ok(point)
}

/// What came of it, if the limit did not end it.
fn finished<T>(outcome: sqlx::Result<T>) -> sqlx::Result<Option<T>> {
    match outcome {
        Err(error) if code(&error) == "57014" => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Runs a query for its pages. The clock is not read for each row: that would count for more than the rows.
async fn run(tx: &mut PgConnection, sql: &str, limit: u32, by_key: bool) -> anyhow::Result<Run> {
    let mut point = limited(tx, limit).await?;
    let options = "analyze, buffers, timing off";
    let plan = finished(explain_with(&mut point, options, sql).await)?;
    point.rollback().await?;
    let Some(plan) = plan else {
        let milliseconds = f64::from(limit);
        return Ok(Run { pages: 0.0, milliseconds, by_key, ended: true });
    };
    let Pasted(plan) = serde_json::from_value(plan)?;
    let (pages, milliseconds) = (plan.root.pages(), plan.execution);
    Ok(Run { pages, milliseconds, by_key, ended: false })
}

async fn tally(tx: &mut PgConnection, sql: &str, ordered: bool) -> sqlx::Result<Tally> {
    let mut tally = Tally::default();
    let mut rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch(tx);
    while let Some(row) = rows.try_next().await? {
        tally.add(ordered, values(&row, &[])?.into_iter());
    }
    Ok(tally)
}
