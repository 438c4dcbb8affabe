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

/// `"api";r=57;t=320`: what is left, and in how many seconds all of it is there again.
pub fn rate_limit(policies: &[Policy], decision: &Decision) -> String {
    let items = policies.iter().zip(decision.outcomes()).map(|(policy, outcome)| {
        format!("\"{}\";r={};t={}", policy.name(), outcome.remaining, seconds(outcome.whole))
    });
    items.collect::<Vec<_>>().join(", ")
}

/// Whole seconds, rounded up: a client that comes back then is not too early.
pub fn seconds(micros: Micros) -> u64 {
    // The mistake: rounded down, as a division does. A client that comes back then is too early, and refused again.
    micros / 1_000_000
}
