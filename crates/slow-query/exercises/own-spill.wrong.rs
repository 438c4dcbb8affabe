// caught by: plan::
    /// Whether its rows did not fit into `work_mem`. A plan without `buffers` tells it only for sorts and hashes.
    pub fn spills(&self) -> bool {
        // The mistake: what the nodes below have written is counted too, so the root always spills.
        self.temp_written > 0.0
            || self.sort_space.as_deref() == Some("Disk")
            || self.hash_batches > 1.0
            || self.aggregate_batches > 1.0
    }
