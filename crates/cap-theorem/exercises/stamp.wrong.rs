// caught by: clock::
    /// A time for a new write of a key whose newest known value has the time `known`. A time is given once.
    pub fn stamp(&self, known: u64) -> u64 {
        let now = now().saturating_add_signed(self.ahead);
        // The mistake: two writes within one microsecond get the same time, and which one wins is left to chance.
        self.last.store(now, Ordering::SeqCst);
        if self.hybrid { now.max(known) } else { now }
    }
