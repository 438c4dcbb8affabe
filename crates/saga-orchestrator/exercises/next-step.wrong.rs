// caught by: next::
    /// What to do next. A call that failed `enough` times is given up or parked. Failures are counted, and no clock is
    /// asked: time in which no orchestrator lived, and nobody tried, must not use up anybody's patience.
    pub fn next(&self, enough: u32) -> Next {
        if self.ended.is_some() || self.parked.is_some() {
            return Next::Rest;
        }
        if let Some(damage) = &self.damage {
            return Next::Write(Record::Parked { reason: damage.clone() });
        }
        let failed = |call| self.of(call).failures >= enough;
        if self.compensates() {
            // The mistake: compensations in the order of the steps. The stock is given to others while the customer
            // still waits for the money; where an undo needs what an earlier step made, it fails.
            for step in STEPS.iter().filter(|step| self.may_have_been_done(step.action)) {
                let Some(undo) = step.compensation else { continue };
                match self.of(undo).outcome {
                    Some(Outcome::Done) => {}
                    None if !failed(undo) => return Next::Ask(undo),
                    // Refused, or tried often enough: there is nothing to fall back on but a human.
                    _ => return self.park(undo),
                }
            }
            return Next::Write(Record::Cancelled);
        }
        for step in STEPS {
            let call = step.action;
            match self.of(call).outcome {
                Some(Outcome::Done) => {}
                None if !failed(call) => return Next::Ask(call),
                None if step.kind != Kind::Retriable => {
                    return Next::Write(Record::GaveUp { call });
                }
                // After the pivot there is no way but forward.
                _ => return self.park(call),
            }
        }
        Next::Write(Record::Confirmed)
    }
