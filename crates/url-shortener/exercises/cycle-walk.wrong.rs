// caught by: compare::permutation::
    /// The place of `number`, which must be below 62⁷.
    pub fn apply(&self, number: u64) -> u64 {
        // The mistake: a fifth of all places is folded onto places that are taken.
        self.network(number) % CODES
    }

    /// A Feistel network: a bijection, whatever the round function is.
    fn network(&self, number: u64) -> u64 {
        let (mut left, mut right) = (number >> HALF, number & MASK);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        left << HALF | right
    }
