//! How does a client learn its limits? `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers-10, as structured fields (RFC 9651).
//!
//! What we write is so narrow (names of `a-z`, `0-9` and `-`, whole numbers) that formatting it is right; the tests parse it with
//! a real parser.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};

use crate::{
    decision::Decision,
    quota::{Micros, Policy},
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

// ANCHOR: fields
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

/// Whole seconds, rounded up: who comes back after so many is not too early.
pub fn seconds(micros: Micros) -> u64 {
    micros.div_ceil(1_000_000)
}
// ANCHOR_END: fields

/// Puts both into an answer. `policy` is made once.
pub fn insert(
    headers: &mut HeaderMap,
    policy: &HeaderValue,
    policies: &[Policy],
    decision: &Decision,
) {
    headers.insert(RATE_LIMIT_POLICY, policy.clone());
    if let Ok(value) = HeaderValue::from_str(&rate_limit(policies, decision)) {
        headers.insert(RATE_LIMIT, value);
    }
    if !decision.allowed {
        // 0 would ask for a retry at once.
        headers.insert(RETRY_AFTER, seconds(decision.wait()).max(1).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Outcome;

    fn policies() -> Vec<Policy> {
        ["api=100/15m", "burst=5/1500ms"].map(|policy| policy.parse().unwrap()).to_vec()
    }

    #[test]
    fn a_policy_tells_its_window_if_that_is_whole_seconds() {
        assert_eq!(rate_limit_policy(&policies()), r#""api";q=100;w=900, "burst";q=5"#);
    }

    #[test]
    fn each_policy_tells_what_is_left_and_when_all_of_it_is_back() {
        let mut decision = Decision::new(true);
        for (remaining, whole) in [(57, 320_000_001), (0, 0)] {
            decision.push(Outcome { remaining, wait: 0, whole });
        }
        let told = rate_limit(&policies(), &decision);
        assert_eq!(told, r#""api";r=57;t=321, "burst";r=0;t=0"#);
    }

    #[test]
    fn seconds_are_rounded_up_so_that_nobody_comes_back_too_early() {
        for (micros, whole) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(seconds(micros), whole, "{micros} µs");
        }
    }
}
