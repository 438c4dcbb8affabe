// caught by: worker::
/// A user has one lane; what is no message of ours goes into any.
pub fn lane_of(payload: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    // The mistake: the whole message decides. It is well spread, and a user's second overtakes the first.
    payload.hash(&mut hasher);
    usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0)
}
