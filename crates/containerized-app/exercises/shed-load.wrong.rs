// caught by: memory::
    /// Takes this much, or refuses at once. Waiting would only move the queue into our own memory.
    pub fn take(&self, mib: u32) -> Result<Held, Error> {
        // The mistake: it asks whether there is something left, and takes one permit for any size.
        let share = Arc::clone(&self.free).try_acquire_many_owned(1).map_err(|_| Error::Full)?;
        self.held.fetch_add(mib, Ordering::Relaxed);
        // The kernel gives a page only when it is written.
        let bytes = vec![1; (mib as usize) << 20];
        Ok(Held { _bytes: bytes, _share: share, mib, sum: Arc::clone(&self.held) })
    }
