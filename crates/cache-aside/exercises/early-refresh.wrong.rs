// caught by: ttl::
/// Whether to reload now: `now − delta · beta · ln(rand) ≥ expiry`, with `left` for `expiry − now`.
///
/// `load_time` is the paper's delta, how long the last load took. `beta` is 1 for the best spread; more reloads
/// earlier, 0 never. `rand` is uniform in (0, 1], so that its logarithm is at most 0 and never infinite.
pub fn is_due(left: Duration, load_time: Duration, beta: f64, rand: f64) -> bool {
    // The mistake: an even chance within a fixed window. The odds do not rise fast enough towards the end.
    left.as_secs_f64() <= load_time.as_secs_f64() * beta * rand
}

/// Decides by chance whether this reader should reload.
pub fn draw(left: Duration, load_time: Duration, beta: f64) -> bool {
    is_due(left, load_time, beta, 1.0 - rand::random::<f64>())
}
