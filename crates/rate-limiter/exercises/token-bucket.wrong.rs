// caught by: gcra_is_the_token_bucket
impl Counter for TokenBucket {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        let passed = now.saturating_sub(self.at);
        // The mistake: whole tokens only, and the part of one that has flowed in is thrown away each time somebody looks.
        let tokens = passed.saturating_mul(quota.limit()) / quota.window();
        self.missing = self.missing.saturating_sub(tokens * quota.window());
        self.at = self.at.max(now);
    }

    fn remaining(&self, quota: &Quota, _: Micros) -> u64 {
        (quota.limit() * quota.window() - self.missing) / quota.window()
    }

    fn take(&mut self, quota: &Quota, _: Micros, cost: u64) {
        let empty = quota.limit() * quota.window();
        self.missing = (self.missing + cost * quota.window()).min(empty);
    }

    fn wait(&self, quota: &Quota, _: Micros, cost: u64) -> Micros {
        let enough = (quota.limit() - cost) * quota.window();
        self.missing.saturating_sub(enough).div_ceil(quota.limit())
    }

    fn whole(&self, quota: &Quota, _: Micros) -> Micros {
        self.missing.div_ceil(quota.limit())
    }
}
