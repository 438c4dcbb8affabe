// caught by: no_bound_is_larger
impl Counter for FixedWindow {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        if now >= self.opened + quota.window() {
            self.used = 0;
        }
    }

    fn remaining(&self, quota: &Quota, _: Micros) -> u64 {
        quota.limit() - self.used
    }

    fn take(&mut self, quota: &Quota, now: Micros, cost: u64) {
        // The mistake: each request opens the window anew, so that a client who goes on asking never gets a fresh one.
        self.opened = now;
        self.used = (self.used + cost).min(quota.limit());
    }

    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros {
        if self.used + cost <= quota.limit() { 0 } else { self.whole(quota, now) }
    }

    fn whole(&self, quota: &Quota, now: Micros) -> Micros {
        if self.used == 0 { 0 } else { (self.opened + quota.window()).saturating_sub(now) }
    }
}
