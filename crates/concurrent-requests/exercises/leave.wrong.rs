// caught by: admission::
    /// A request has left after so long.
    fn leave(self: &Arc<Self>, kept: Duration, teaches: Teaches) {
        let mut state = self.state();
        let at_work = state.in_flight;
        let counts = match teaches {
            Teaches::Exactly => {
                state.limit.learn(kept, at_work);
                true
            }
            Teaches::AtLeast => {
                state.limit.learn_at_least(kept, at_work);
                !state.usual.is_zero() && kept > state.usual
            }
            Teaches::Nothing => false,
        };
        if counts {
            let seen = if state.usual.is_zero() { kept } else { kept.min(8 * state.usual) };
            state.usual = (state.usual * 7 + seen) / 8;
        }
        state.in_flight -= 1;
        while state.in_flight < state.limit.now() {
            let Some((_, next)) = state.waiting.pop_first() else { return };
            // The mistake: it is begun as long as its deadline has not passed, and is late when it is done.
            let turn = if next.deadline > Instant::now() {
                state.in_flight += 1;
                Ok(self.place())
            } else {
                Err(Error::TOO_LATE)
            };
            let _ = next.turn.send(turn);
        }
    }
