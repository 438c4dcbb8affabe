// caught by: layer::
/// `"api";q=100;w=900`. A window that is not whole seconds cannot be told, and `w` may be left out.
pub fn rate_limit_policy(policies: &[Policy]) -> String {
    let item = |policy: &Policy| {
        let (limit, window) = (policy.quota().limit(), policy.quota().window());
        let w = if window.is_multiple_of(1_000_000) {
            format!(";w={}", window / 1_000_000)
        } else {
            String::new()
        };
        format!("\"{}\";q={limit}{w}", policy.name())
    };
    policies.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// `"api";r=57`: what is left. `"api";r=3;t=90`: too little for this request, and in how many seconds there is enough.
pub fn rate_limit(policies: &[Policy], decision: &Decision) -> String {
    let items = policies.iter().zip(decision.outcomes()).map(|(policy, outcome)| {
        let t = (outcome.wait > 0).then(|| format!(";t={}", seconds(outcome.wait)));
        format!("\"{}\";r={}{}", policy.name(), outcome.remaining, t.unwrap_or_default())
    });
    items.collect::<Vec<_>>().join(", ")
}

/// Whole seconds, rounded up: a client that comes back then is not too early.
pub fn seconds(micros: Micros) -> u64 {
    // The mistake: rounded down, as a division does. A client that comes back then is too early, and refused again.
    micros / 1_000_000
}
