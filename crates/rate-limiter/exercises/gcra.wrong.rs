// caught by: gcra_keeps
impl Counter for Gcra {
    fn advance(&mut self, _: &Quota, now: Micros) {
        // The mistake: what a quiet client has not used is saved up without a bound.
        if self.due == 0 {
            self.due = now;
        }
    }

    fn remaining(&self, quota: &Quota, now: Micros) -> u64 {
        let latest = now + quota.limit() * quota.interval();
        latest.saturating_sub(self.due) / quota.interval()
    }

    fn take(&mut self, quota: &Quota, now: Micros, cost: u64) {
        let latest = now + quota.limit() * quota.interval();
        self.due = (self.due + cost * quota.interval()).min(latest.max(self.due));
    }

    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros {
        let latest = now + (quota.limit() - cost) * quota.interval();
        self.due.saturating_sub(latest)
    }

    fn whole(&self, _: &Quota, now: Micros) -> Micros {
        self.due.saturating_sub(now)
    }
}
