// caught by: ring::
    /// The shard of the first point at or after the code's place, and past the end the first of all.
    pub fn shard_of(&self, code: &Code) -> usize {
        // The mistake: a remainder, which changes with the number of points.
        let points = self.points.len() as u64;
        let next = place(code.as_str()) % points.max(1);
        usize::try_from(next).ok().and_then(|next| self.points.get(next)).map_or(0, |&(_, shard)| shard)
    }
