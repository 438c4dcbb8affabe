// caught by: quorum-is-not-enough
    /// The register of Attiya, Bar-Noy and Dolev. First ask a majority which number is the greatest; then write with a
    /// greater one. Two majorities have a node in common, so every write that has ended is seen here.
    async fn write_atomic(&self, slot: &Slot, change: Change) -> Result<(Record, usize)> {
        let seen = self.ask(slot, Level::Quorum).await?;
        let number = merged(slot, &seen.answers).number();
        self.finish(seen);
        let record = self.write_here(slot, change, number).await?;
        let acknowledged = self.tell(slot, &record, Level::Quorum).await?;
        Ok((record, acknowledged))
    }

    /// Asks a majority, and answers.
    async fn read_atomic(&self, slot: &Slot) -> Result<Record> {
        let seen = self.ask(slot, Level::Quorum).await?;
        let newest = merged(slot, &seen.answers);
        // The mistake: the other nodes are repaired after the answer. Until then, the next reader may meet a majority that
        // has only the old value.
        self.tasks.spawn(self.clone().repair(slot.clone(), seen));
        Ok(newest)
    }
