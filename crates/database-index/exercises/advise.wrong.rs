// caught by: advice
/// Adds every index that could serve a query that was seen.
pub async fn advise(store: &Store, seen: &Seen) -> Result<Advice> {
    let (statements, existing) = (seen.all(store).await?, store.indexes().await?);
    let mut trial = store.trial().await?;
    let now = costs(&mut trial, &statements).await?;
    let mut missing = Vec::new();
    // The mistake: each index is tried alone, and proposed if it helps. So both (city) and (city, born) are, and every write
    // pays for both.
    for index in candidates(&statements) {
        if existing.iter().any(|it| it.valid && index.is_defined_by(&it.definition)) {
            continue;
        }
        let Ok(name) = Name::parse(&index.name()) else { continue };
        let Some(tried) = trial.create(name.clone(), &index).await? else { continue };
        let with = costs(&mut trial, &statements).await?;
        let pairs = statements.iter().zip(now.iter().zip(&with));
        let helped = pairs.filter(|(_, (now, with))| **now >= *with * NEEDED);
        let helps: Vec<_> = helped.map(|(statement, _)| statement.query.name).collect();
        trial.hide(&tried).await?;
        if !helps.is_empty() {
            let definition = index.statement("concurrently", &name);
            missing.push(Missing { name: index.name(), definition, helps });
        }
    }
    let then = now.clone();
    trial.end().await?;
    let judged = statements.iter().zip(now.into_iter().zip(then));
    let judged = judged.map(|(it, (cost_now, cost_then))| Judged {
        query: it.query.name,
        runs: it.runs,
        cost_now,
        cost_then,
    });
    let superfluous = Vec::new();
    Ok(Advice { statements: judged.collect(), missing, superfluous, tried_with: "nothing" })
}
