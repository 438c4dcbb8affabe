// caught by: next::
    /// Reads one more record. One that cannot follow on those before it was written by no code of ours.
    pub fn push(&mut self, record: &Record, at: OffsetDateTime) {
        self.length += 1;
        if self.ended.is_some() {
            return self.damaged("it comes after the end");
        }
        match record {
            Record::Asked { call } if self.of(*call).since.is_none() => {
                self.asked.push(*call);
                self.progress(*call).since = Some(at);
                self.progress(*call).at = Some(at);
            }
            Record::Done { call } if self.is_open(*call) => self.settle(*call, Outcome::Done, at),
            Record::Refused { call, reason } if self.is_open(*call) => {
                self.settle(*call, Outcome::Refused, at);
                self.progress(*call).last_error = Some(reason.clone());
            }
            Record::Failed { call, unknown, reason } if self.is_open(*call) => {
                let progress = self.progress(*call);
                // The mistake: the last attempt decides. That nobody listens now says nothing of the one before.
                progress.maybe = *unknown;
                progress.attempts += 1;
                progress.failures += 1;
                progress.last_error = Some(reason.clone());
                progress.at = Some(at);
            }
            Record::GaveUp { call } if self.is_open(*call) => {
                self.progress(*call).outcome = Some(Outcome::GaveUp);
                self.progress(*call).at = Some(at);
            }
            Record::TakenOver => {
                if let Some(progress) = self.last_call() {
                    progress.maybe = true;
                }
            }
            Record::Parked { reason } if self.parked.is_none() => {
                self.parked = Some(reason.clone());
            }
            Record::Resumed if self.parked.is_some() => {
                self.parked = None;
                if let Some(progress) = self.last_call() {
                    (progress.since, progress.failures, progress.outcome) = (Some(at), 0, None);
                }
            }
            Record::Confirmed if STEPS.iter().all(|step| self.is_done(step.action)) => {
                self.ended = Some(Status::Confirmed);
            }
            Record::Cancelled if self.compensates() => self.ended = Some(Status::Cancelled),
            _ => self.damaged("it cannot follow on those before it"),
        }
    }
