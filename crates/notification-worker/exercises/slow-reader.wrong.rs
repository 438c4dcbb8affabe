// caught by: hub::
    /// Tells the sockets of a user, without waiting for any.
    fn tell(&self, user: &UserId, told: &Told) {
        for listener in self.listeners().get(user).into_iter().flatten() {
            // The mistake: to drop it and say nothing. Its client never gets what is in the database.
            let _ = listener.queue.try_send(told.clone());
        }
    }
