// caught by: tally::
    /// Adds a row. A value is preceded by its length, so that `a`, `bc` and `ab`, `c` differ, and NULL is no empty text. If
    /// the query orders its rows, their order counts too; otherwise the same rows in another order are the same result.
    pub fn add<'a>(&mut self, ordered: bool, values: impl Iterator<Item = Option<&'a [u8]>>) {
        let mut row = Sha256::new();
        if ordered {
            row.update(self.digest.to_be_bytes());
        }
        for value in values {
            let length = value.map_or(u64::MAX, |value| value.len() as u64);
            row.update(length.to_be_bytes());
            row.update(value.unwrap_or_default());
        }
        let mut first = [0; 16];
        first.copy_from_slice(&row.finalize()[..16]);
        let row = u128::from_be_bytes(first);
        // The mistake: with an exclusive or, two equal rows cancel each other out.
        self.digest = if ordered { row } else { self.digest ^ row };
        self.rows += 1;
    }
