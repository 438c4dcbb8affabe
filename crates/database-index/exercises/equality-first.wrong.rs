// caught by: query::
    /// The indexes that could serve it.
    pub fn candidates(&self) -> Vec<Index> {
        let index = |path: &Path| {
            // The mistake: the range comes first, so within a day the cities are in order, and not the reverse.
            let keys = path.then.map(Key::Column).into_iter().chain(path.equal.iter().copied());
            let keys: Vec<_> = keys.collect();
            Index { kind: path.kind, status: path.status, ..Index::on(&keys) }
        };
        self.paths.iter().map(index).collect()
    }
