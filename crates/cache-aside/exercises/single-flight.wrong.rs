// caught by: flight::
impl Flights {
    /// Lets one at a time load a user.
    pub fn board(self: &Arc<Self>, id: UserId) -> Turn {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let (end, ended) = watch::channel(());
        // The mistake: the second reader puts a flight into the map that has ended before it began. The third reader
        // follows that flight, and does not wait at all.
        match under_way.insert(id, ended) {
            Some(flight) => Turn::Follow(flight),
            None => Turn::Lead(Landing { flights: Arc::clone(self), id, _end: end }),
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.id);
    }
}
