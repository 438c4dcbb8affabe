// caught by: admission::
    /// Somebody has left after so long.
    fn leave(self: &Arc<Self>, kept: Duration) {
        let mut state = self.state();
        state.usual = (state.usual * 7 + kept) / 8;
        while let Some((_, next)) = state.waiting.pop_first() {
            // The mistake: it is begun as long as its deadline has not passed, and is late when it is done.
            if next.deadline > Instant::now() {
                let _ = next.turn.send(self.place());
                return;
            }
        }
        state.in_flight -= 1;
    }
