// caught by: retry::
    /// How long to wait after this many failures, the first being 1; nothing when it is time to give up. Not less than
    /// the seconds that the channel asks for (`Retry-After`), up to a day.
    pub fn after(&self, failures: u16, retry_after: Option<u64>) -> Option<Duration> {
        let share = SHARES[rand::rng().random_range(0..SHARES.len())];
        // The mistake: the header in place of the schedule. "Retry-After: 0" is then a loop without a pause.
        let wait = match retry_after {
            Some(seconds) => Duration::from_secs(seconds.min(LONGEST_WISH)),
            None => self.step(failures) * share / 100,
        };
        (failures < self.attempts).then_some(wait)
    }

    /// The longest wait after this many failures, if the channel asks for nothing.
    pub fn step(&self, failures: u16) -> Duration {
        self.first * 2_u32.saturating_pow(u32::from(failures.clamp(1, 20)) - 1)
    }
