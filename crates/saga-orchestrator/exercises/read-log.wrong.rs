// caught by: next::
    /// Reads one more record. One that cannot follow those before it was not written by this program.
    pub fn push(&mut self, record: &Record, at: OffsetDateTime) {
        self.length += 1;
        if self.ended.is_some() {
            return self.damaged("it comes after the end");
        }
        let was_done = |call| self.of(call).outcome == Some(Outcome::Done);
        let is_done = |step: &Step| was_done(step.action);
        let is_undone = |step: &Step| {
            !self.may_have_been_done(step.action) || step.compensation.is_none_or(was_done)
        };
        match record {
            Record::Asked { call } if !self.asked.contains(call) => {
                self.asked.push(*call);
                self.heard_of(*call, at);
            }
            Record::Done { call } if self.is_open(*call) => {
                let progress = self.heard_of(*call, at);
                progress.attempts += 1;
                progress.outcome = Some(Outcome::Done);
            }
            Record::Refused { call, reason } if self.is_open(*call) => {
                let progress = self.heard_of(*call, at);
                progress.attempts += 1;
                progress.outcome = Some(Outcome::Refused);
                progress.last_error = Some(reason.clone());
            }
            Record::Failed { call, outcome_unknown, reason } if self.is_open(*call) => {
                let progress = self.heard_of(*call, at);
                progress.attempts += 1;
                progress.failures += 1;
                // The mistake: the last attempt decides. That nobody listens now says nothing of the one before.
                progress.outcome_unknown = *outcome_unknown;
                progress.last_error = Some(reason.clone());
            }
            Record::GaveUp { call } if self.is_open(*call) => {
                self.heard_of(*call, at).outcome = Some(Outcome::GaveUp);
            }
            Record::TakenOver => {
                if let Some(progress) = self.unfinished() {
                    progress.outcome_unknown = true;
                }
            }
            Record::Parked { reason } if self.parked.is_none() => {
                self.parked = Some(reason.clone());
            }
            Record::Resumed if self.parked.is_some() => {
                self.parked = None;
                if let Some(progress) = self.unfinished() {
                    (progress.failures, progress.outcome) = (0, None);
                }
            }
            // An end that nothing led to would lose an order, or the money for it.
            Record::Confirmed if STEPS.iter().all(is_done) => {
                self.ended = Some(Status::Confirmed);
            }
            Record::Cancelled if self.compensates() && STEPS.iter().all(is_undone) => {
                self.ended = Some(Status::Cancelled);
            }
            _ => self.damaged("it cannot follow those before it"),
        }
    }
