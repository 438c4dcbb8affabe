// caught by: orchestrator::
    /// Twice as long after each failure.
    fn pause(&self, failures: u32) -> Duration {
        // The mistake: no jitter. All orders that failed together are tried again together.
        let doubled = 1_u32.checked_shl(failures).unwrap_or(u32::MAX) / 2;
        self.backoff.saturating_mul(doubled).min(self.longest_backoff)
    }
