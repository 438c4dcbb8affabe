// caught by: next::
    /// Whether it was done.
    pub(crate) fn may_have_been_done(&self, call: Call) -> bool {
        // The mistake: what timed out was not done. The customer is charged for an order that is cancelled.
        self.of(call).outcome == Some(Outcome::Done)
    }
