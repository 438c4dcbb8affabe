// caught by: next::
    /// What to do next. `deadline` is for a call, from when it was first asked for.
    pub fn next(&self, now: OffsetDateTime, deadline: Duration) -> Next {
        if self.ended.is_some() || self.parked.is_some() {
            return Next::Rest;
        }
        if let Some(damage) = &self.damage {
            return Next::Write(Record::Parked { reason: damage.clone() });
        }
        let late = |call| self.of(call).is_late(now, deadline);
        if self.compensates() {
            // The mistake: compensations in the order of the steps. The stock is given to others while the customer
            // still waits for the money; where an undo needs what an earlier step made, it fails.
            for step in STEPS.iter().filter(|step| self.may_have_been_done(step.action)) {
                let Some(undo) = step.compensation else { continue };
                match self.of(undo).outcome {
                    Some(Outcome::Done) => {}
                    Some(_) => return self.park(undo),
                    None if late(undo) => return self.park(undo),
                    None => return Next::Ask(undo),
                }
            }
            return Next::Write(Record::Cancelled);
        }
        for step in STEPS {
            let call = step.action;
            match self.of(call).outcome {
                Some(Outcome::Done) => {}
                Some(_) => return self.park(call),
                None if late(call) && step.kind == Kind::Retriable => return self.park(call),
                None if late(call) => return Next::Write(Record::GaveUp { call }),
                None => return Next::Ask(call),
            }
        }
        Next::Write(Record::Confirmed)
    }

    /// Whether it goes backwards: an action up to the pivot was refused, or given up.
    pub(crate) fn compensates(&self) -> bool {
        STEPS.iter().filter(|step| step.kind != Kind::Retriable).any(|step| {
            matches!(self.of(step.action).outcome, Some(Outcome::Refused | Outcome::GaveUp))
        })
    }

    fn may_have_been_done(&self, call: Call) -> bool {
        let progress = self.of(call);
        match progress.outcome {
            Some(Outcome::Done) => true,
            Some(Outcome::Refused | Outcome::GaveUp) => progress.maybe,
            None => false,
        }
    }
