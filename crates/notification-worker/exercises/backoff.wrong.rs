// caught by: retry::
impl Backoff {
    /// How long to wait after this many failures, the first being 1; nothing when it is time to give up. Not less than
    /// the seconds that the channel asks for (`Retry-After`), up to a day.
    pub fn after(&self, failures: u16, retry_after: Option<u64>) -> Option<Duration> {
        // The mistake: the header in place of the schedule. "Retry-After: 0" is then a loop without a pause.
        let wait = match retry_after {
            Some(seconds) => Duration::from_secs(seconds.min(MAX_RETRY_AFTER)),
            None => self.step(failures).mul_f64(rand::random_range(JITTER)),
        };
        (failures < self.attempts).then_some(wait)
    }

    /// The longest wait after this many failures, if the channel asks for nothing.
    pub fn step(&self, failures: u16) -> Duration {
        let first = Duration::from_millis(self.backoff_ms);
        first * 2_u32.saturating_pow(u32::from(failures.clamp(1, 20)) - 1)
    }
}
