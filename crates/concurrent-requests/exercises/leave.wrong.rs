// caught by: admission::
    /// Somebody has left after so long.
    fn leave(self: &Arc<Self>, kept: Duration) {
        let mut state = self.state();
        state.usual = (state.usual * 7 + kept) / 8;
        let at_work = state.in_flight;
        state.limit.learn(kept, at_work);
        state.in_flight -= 1;
        while state.in_flight < state.limit.now() {
            let Some((_, next)) = state.waiting.pop_first() else { return };
            // The mistake: it is begun as long as its deadline has not passed, and is late when it is done.
            if next.deadline > Instant::now() {
                state.in_flight += 1;
                let _ = next.turn.send(self.place());
            }
        }
    }
