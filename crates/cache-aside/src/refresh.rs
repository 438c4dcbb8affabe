//! A hot value is about to expire. Who reloads it, so that nobody waits?
//!
//! A reader that finds it, by chance, and the more likely the nearer the end is: `XFetch`, of Vattani and
//! others, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015. Readers need
//! not talk to each other for that, and a value that is read seldom is not reloaded for nothing.

use std::time::Duration;

// ANCHOR: xfetch
/// Whether to reload now: `now − delta · beta · ln(rand) ≥ expiry`, with `left` for `expiry − now`.
///
/// `load_time` is the paper's delta, how long the last load took. `beta` is 1 for the best spread; more reloads
/// earlier, 0 never. `rand` is uniform in (0, 1], so that its logarithm is at most 0 and never infinite.
pub fn is_due(left: Duration, load_time: Duration, beta: f64, rand: f64) -> bool {
    -load_time.as_secs_f64() * beta * rand.ln() >= left.as_secs_f64()
}

/// Whether chance says so.
pub fn draw(left: Duration, load_time: Duration, beta: f64) -> bool {
    is_due(left, load_time, beta, 1.0 - rand::random::<f64>())
}
// ANCHOR_END: xfetch

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Duration = Duration::from_millis(100);

    #[test]
    fn chance_is_e_to_the_minus_left_over_load_time() {
        for left in [0.05_f64, 0.1, 0.3] {
            let due = (1..=100_000)
                .filter(|&n| {
                    is_due(Duration::from_secs_f64(left), LOAD, 1.0, f64::from(n) / 100_000.0)
                })
                .count() as f64;
            let expected = (-left / 0.1).exp();
            assert!((due / 100_000.0 - expected).abs() < 1e-4, "{due} at {left}");
        }
    }

    #[test]
    fn beta_zero_never_reloads_early_and_the_end_always_does() {
        assert!(!is_due(Duration::from_nanos(1), LOAD, 0.0, f64::MIN_POSITIVE));
        assert!(is_due(Duration::ZERO, LOAD, 1.0, 1.0));
        assert!((0..10_000).all(|_| !draw(Duration::from_hours(1), LOAD, 1.0)));
    }
}
