// caught by: query::
    /// The indexes that could serve it.
    pub fn candidates(&self) -> Vec<Index> {
        let index = |path: &Path| {
            // The mistake: the range comes first, so within a day the cities are in order, and not the reverse.
            let columns = path.then.into_iter().chain(path.equal.iter().copied()).collect();
            Index { columns, ..path.index.clone() }
        };
        self.served_by.iter().map(index).collect()
    }
