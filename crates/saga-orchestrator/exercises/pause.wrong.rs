// caught by: orchestrator::
    /// Twice as long after each failure.
    fn pause(&self, failures: u32) -> Duration {
        // The mistake: no jitter. All who failed together come back together, and fail together.
        let doubled = 1 << failures.saturating_sub(1).min(20);
        self.backoff.saturating_mul(doubled).min(self.longest_backoff)
    }
