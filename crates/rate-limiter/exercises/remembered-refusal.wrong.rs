// caught by: lease::
    /// Decides without Redis, if what is known is enough for that.
    fn decide(&mut self, cost: u64, now: Micros) -> Option<Decision> {
        if cost <= self.held && now < self.held_until {
            self.held -= cost;
            return Some(self.decision_at(true, now));
        }
        // The mistake: a refused report says nothing about a greeting, which costs less and may pass.
        let (_, until) = self.refused?;
        (now < until).then(|| self.decision_at(false, now))
    }
