//! Which index is missing, and which is superfluous? The planner is asked, and it answers for the queries that were seen.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::{error::Result, index::Name, query::Query, store::Statement, store::Store};

/// An index is needed if, without it, some query that was seen costs this many times as much.
const NEEDED: f64 = 1.2;

/// The queries that this process has seen, and when it saw the first. The lock is held for a line or two, and never while
/// anything is awaited.
#[derive(Debug, Default)]
pub struct Seen(Mutex<BTreeMap<&'static str, Statement>>, OnceLock<Instant>);

impl Seen {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Statement>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a run.
    pub fn note(&self, query: &'static Query, values: Vec<String>) {
        self.1.get_or_init(Instant::now);
        let mut seen = self.lock();
        let runs = seen.get(&*query.name).map_or(0, |(.., runs)| *runs);
        seen.insert(&query.name, (query, values, runs + 1));
    }
}

// ANCHOR: advise
/// Adds every index that could serve a query that was seen, and then takes away one index after another: the new ones first,
/// those with fewer columns before those with more, and then those that are there. An index that is missed by no query stays
/// away. So of `(city)` and `(city, born)` only the second is proposed, if it serves both queries. Each state is compared with
/// the one that had all indexes: many small losses would add up. That no query seen misses an index says only that much: one
/// that runs once a month may not have been seen.
pub async fn advise(store: &Store, seen: &Seen) -> Result<Value> {
    let statements: Vec<_> = seen.lock().values().cloned().collect();
    let mut trial = store.trial().await?;
    // From now on nobody else builds or drops one.
    let mut existing = store.indexes().await?;
    // An invalid one serves no query, so it may be missing.
    existing.retain(|it| it.state == "ready");
    let now = trial.costs(&statements).await?;
    let mut doubtful = Vec::new();
    let mut new: Vec<_> = statements.iter().flat_map(|(query, ..)| query.candidates()).collect();
    new.sort_by_key(|index| index.columns.len() + index.include.len());
    for index in new {
        // One that was made for another query already cannot be made again.
        let name = Name::parse(&format!("try_{}", index.name()))?;
        let is_there = existing.iter().any(|it| index.is_defined_by(&it.definition));
        if !is_there && trial.create(&name, &index).await? {
            doubtful.push((name, Some(index)));
        }
    }
    // Where no query was seen, none is missed.
    let old = existing.iter().filter(|it| !it.needed && !statements.is_empty());
    doubtful.extend(old.filter_map(|it| Some((Name::parse(&it.name).ok()?, None))));
    let all = trial.costs(&statements).await?;
    let (mut missing, mut others) = (Vec::new(), Vec::new());
    for (name, index) in doubtful {
        trial.hide(&name).await?;
        let without = trial.costs(&statements).await?;
        let pairs = statements.iter().zip(without.iter().zip(&all));
        let misses = pairs.filter(|(_, (without, with))| **without >= *with * NEEDED);
        let helps: Vec<_> = misses.map(|((query, ..), _)| &query.name).collect();
        if helps.is_empty() {
            others.extend(index.is_none().then_some(name));
            continue;
        }
        trial.put_back().await?;
        missing.extend(index.map(|it| json!({ "name": it.name(), "index": it, "helps": helps })));
    }
    let then = trial.costs(&statements).await?;
    let costs = statements.iter().zip(now.into_iter().zip(then));
    let costs = costs.map(|((query, _, runs), (now, then))| {
        json!({ "query": query.name, "runs": runs, "cost_now": now, "cost_then": then })
    });
    let costs: Vec<_> = costs.collect();
    let seconds = seen.1.get().map(|first| first.elapsed().as_secs());
    Ok(json!({ "statements": costs, "seconds": seconds, "missing": missing, "not_missed": others }))
}
// ANCHOR_END: advise
