// caught by: admission::
    /// Nothing if there is a place. Otherwise a ticket, if the queue has room.
    fn line_up(&self, priority: Priority, deadline: Instant) -> Result<Option<Ticket<'_>>> {
        if deadline <= Instant::now() {
            return Err(Error::TOO_LATE);
        }
        let mut state = self.state();
        if state.in_flight < state.limit.now() {
            state.in_flight += 1;
            return Ok(None);
        }
        state.arrived += 1;
        let by = match self.limits.order {
            Order::Fifo => state.arrived.into(),
            Order::Lifo => u128::MAX - u128::from(state.arrived),
            Order::Deadline => deadline.saturating_duration_since(self.opened).as_nanos(),
        };
        let rank = (priority, by, state.arrived);
        // The mistake: a full queue refuses whoever comes, also those who would stand before others in it.
        if state.waiting.len() >= self.limits.waiting {
            return Err(Error::BUSY);
        }
        let (turn, receiver) = oneshot::channel();
        state.waiting.insert(rank, Waiter { deadline, turn });
        Ok(Some(Ticket { admission: self, rank, turn: receiver }))
    }
