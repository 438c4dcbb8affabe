//! Which index is missing, and which is superfluous? The planner is asked, and it answers for the queries that were seen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use crate::error::Result;
use crate::index::{Index, Name};
use crate::query::{QUERIES, Query, Value};
use crate::store::{Store, Trial, Tried};

/// An index is needed if, without it, some query that was seen costs this many times as much.
const NEEDED: f64 = 1.2;

/// A query that was seen.
#[derive(Clone, Debug)]
pub struct Statement {
    query: &'static Query,
    /// Of the last run.
    values: Vec<Value>,
    runs: i64,
}

/// The queries that this process has seen. Its lock is held for a line or two, and never while anything is awaited.
#[derive(Debug, Default)]
pub struct Seen(Mutex<BTreeMap<&'static str, Statement>>);

impl Seen {
    /// Counts a run.
    pub fn note(&self, query: &'static Query, values: &[Value]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Statement { query, values: Vec::new(), runs: 0 };
        let statement = seen.entry(query.name).or_insert(new);
        values.clone_into(&mut statement.values);
        statement.runs += 1;
    }

    /// All of them, with what `pg_stat_statements` has counted of others.
    async fn all(&self, store: &Store) -> Result<Vec<Statement>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (sql, runs) in store.counted(&QUERIES.map(|query| query.sql)).await {
            let Some(query) = QUERIES.iter().find(|query| query.sql == sql) else { continue };
            let new = Statement { query, values: query.examples()?, runs: 0 };
            all.entry(query.name).or_insert(new).runs += runs;
        }
        Ok(all.into_values().collect())
    }
}

/// A query, and what the planner thinks of it.
#[derive(Clone, Debug, Serialize)]
struct Judged {
    query: &'static str,
    runs: i64,
    cost_now: f64,
    cost_then: f64,
}

/// An index that would help.
#[derive(Clone, Debug, Serialize)]
struct Missing {
    name: String,
    definition: String,
    /// Queries that need it.
    helps: Vec<&'static str>,
}

/// What to do.
#[derive(Clone, Debug, Serialize)]
pub struct Advice {
    statements: Vec<Judged>,
    missing: Vec<Missing>,
    superfluous: Vec<String>,
    tried_with: &'static str,
}

/// An index in a trial: a new one, or one that is there.
struct Doubtful {
    tried: Tried,
    index: Option<Index>,
    name: String,
    keys: usize,
}

// ANCHOR: advise
/// Adds every index that could serve a query that was seen, and then takes away one index after another: the new ones first,
/// those with fewer columns before those with more, and then those that are there. An index that is missed by no query stays
/// away. So of `(city)` and `(city, born)` only the second is proposed, if it serves both queries.
pub async fn advise(store: &Store, seen: &Seen) -> Result<Advice> {
    let (statements, existing) = (seen.all(store).await?, store.indexes().await?);
    let mut trial = store.trial().await?;
    let now = costs(&mut trial, &statements).await?;
    let mut doubtful = Vec::new();
    for index in candidates(&statements) {
        let there = existing.iter().any(|it| it.valid && index.is_defined_by(&it.definition));
        let Some(name) = Name::parse(&format!("try_{}", index.name())).ok().filter(|_| !there)
        else {
            continue;
        };
        if let Some(tried) = trial.create(name, &index).await? {
            let (name, keys) = (index.name(), index.keys.len());
            doubtful.push(Doubtful { tried, index: Some(index), name, keys });
        }
    }
    doubtful.sort_by_key(|it| it.keys);
    let mut old: Vec<_> = existing.iter().filter(|it| it.valid && !it.unique).collect();
    old.sort_by_key(|it| it.keys.len());
    // Where no query was seen, each index would look superfluous.
    for index in old.into_iter().filter(|_| !statements.is_empty()) {
        let Ok(name) = Name::parse(&index.name) else { continue };
        let (tried, keys) = (Tried::existing(name), index.keys.len());
        doubtful.push(Doubtful { tried, index: None, name: index.name.clone(), keys });
    }
    let mut then = costs(&mut trial, &statements).await?;
    let (mut missing, mut superfluous) = (Vec::new(), Vec::new());
    for Doubtful { tried, index, name, .. } in doubtful {
        trial.hide(&tried).await?;
        let without = costs(&mut trial, &statements).await?;
        let pairs = statements.iter().zip(without.iter().zip(&then));
        let misses = pairs.filter(|(_, (without, with))| **without >= *with * NEEDED);
        let helps: Vec<_> = misses.map(|(statement, _)| statement.query.name).collect();
        if helps.is_empty() {
            then = without;
            superfluous.extend(index.is_none().then_some(name));
            continue;
        }
        trial.put_back(tried, index.as_ref()).await?;
        if let Some((index, parsed)) = index.zip(Name::parse(&name).ok()) {
            let definition = index.statement("concurrently", &parsed);
            missing.push(Missing { name, definition, helps });
        }
    }
    let tried_with =
        if trial.hypothetical { "hypopg" } else { "a transaction that is rolled back" };
    trial.end().await?;
    let judged = statements.iter().zip(now.into_iter().zip(then));
    let judged = judged.map(|(it, (cost_now, cost_then))| Judged {
        query: it.query.name,
        runs: it.runs,
        cost_now,
        cost_then,
    });
    Ok(Advice { statements: judged.collect(), missing, superfluous, tried_with })
}
// ANCHOR_END: advise

/// Each index that could serve one of the queries, once.
fn candidates(statements: &[Statement]) -> Vec<Index> {
    let mut candidates = Vec::new();
    for index in statements.iter().flat_map(|statement| statement.query.candidates()) {
        if !candidates.contains(&index) {
            candidates.push(index);
        }
    }
    candidates
}

async fn costs(trial: &mut Trial, statements: &[Statement]) -> Result<Vec<f64>> {
    let mut costs = Vec::new();
    for Statement { query, values, .. } in statements {
        costs.push(trial.cost(query, values).await?);
    }
    Ok(costs)
}
