// caught by: refresh::
    /// Within the grace, an older token is as good as the current ones.
    pub fn verdict(&self, grace: Duration) -> Verdict {
        if self.revoked {
            Verdict::Revoked
        } else if self.expired {
            Verdict::Expired
        } else if self.generation == self.current {
            Verdict::Advance
        } else if self.advanced <= grace.as_secs_f64() {
            // The mistake: the grace is for every older token. While the user goes on refreshing, so does the thief.
            Verdict::Join
        } else {
            Verdict::Reuse
        }
    }
