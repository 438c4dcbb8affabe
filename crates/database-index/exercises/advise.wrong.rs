// caught by: advice
/// Adds every index that could serve a query that was seen.
pub async fn advise(store: &Store, seen: &Seen) -> Result<Value> {
    let statements: Vec<_> = seen.lock().values().cloned().collect();
    let mut trial = store.trial().await?;
    let existing = store.indexes().await?;
    let now = trial.costs(&statements).await?;
    let mut missing = Vec::new();
    // The mistake: each index is tried alone, and proposed if it helps. So both (city) and (city, born) are, and every write
    // pays for both.
    for index in statements.iter().flat_map(|(query, ..)| query.candidates()) {
        let name = Name::parse(&format!("try_{}", index.name()))?;
        let is_there = existing.iter().any(|it| index.is_defined_by(&it.definition));
        if is_there || !trial.create(&name, &index).await? {
            continue;
        }
        let with = trial.costs(&statements).await?;
        let pairs = statements.iter().zip(now.iter().zip(&with));
        let helped = pairs.filter(|(_, (now, with))| **now >= *with * NEEDED);
        let helps: Vec<_> = helped.map(|((query, ..), _)| &query.name).collect();
        trial.hide(&name).await?;
        if !helps.is_empty() {
            missing.push(json!({ "name": index.name(), "index": index, "helps": helps }));
        }
    }
    let costs = statements.iter().zip(now).map(|((query, _, runs), now)| {
        json!({ "query": query.name, "runs": runs, "cost_now": now, "cost_then": now })
    });
    let costs: Vec<_> = costs.collect();
    let seconds = seen.1.get().map(|first| first.elapsed().as_secs());
    Ok(json!({ "statements": costs, "seconds": seconds, "missing": missing, "not_missed": [] }))
}
