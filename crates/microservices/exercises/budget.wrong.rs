// caught by: peer::
/// One retry for ten calls, over all calls to one service; in tenths of a retry.
#[derive(Debug, Default)]
pub struct Budget(AtomicU32);

impl Budget {
    /// Each call adds a tenth, whether or not it goes well. At most ten retries are saved.
    pub fn earn(&self) {
        // The mistake: a quiet night saves enough for a storm in the morning.
        self.0.fetch_add(1, Relaxed);
    }

    /// Whether a call may be sent again.
    pub fn spend(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |tenths| tenths.checked_sub(10)).is_ok()
    }
}
