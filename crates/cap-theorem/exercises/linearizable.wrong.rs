// caught by: checker::
    /// Takes operations until none is left that has to be taken. The error is the operation that could not be taken when
    /// the order was longest, and how long it was.
    fn run(&mut self) -> Result<(), (usize, usize)> {
        let mut left = self.operations.iter().filter(|(_, it)| it.returned.is_some()).count();
        let (mut state, mut taken) = (None, 0);
        while left > 0 {
            // The mistake: whatever fits is taken, and no choice is ever taken back. Where two writes overlap, the first
            // one is not always the right one.
            let Some((next, after)) = self.next(0, state) else {
                return Err((self.due().unwrap_or_default(), taken));
            };
            self.flip(next);
            self.tried.insert((self.taken.clone(), after));
            left -= usize::from(self.operations[next].1.returned.is_some());
            (state, taken) = (after, taken + 1);
        }
        Ok(())
    }

    /// An operation that may come next and fits the value, and the value after it. It may come next if it was called before
    /// any other that is left had returned. One that only looks comes first, otherwise the first from `from` on.
    fn next(&self, from: usize, state: State<'a>) -> Option<(usize, State<'a>)> {
        let (mut first_return, mut found) = (u64::MAX, None);
        for (number, &(_, operation)) in self.operations.iter().enumerate() {
            if self.is_taken(number) {
                continue;
            }
            // The operations are in the order of their calls: all that follow were called later still.
            if operation.called > first_return {
                break;
            }
            if let Some(after) = apply(operation, state) {
                if only_looks(operation) {
                    return Some((number, after));
                }
                // An operation that need not have happened is of no use if it changes nothing.
                let useful = operation.returned.is_some() || after != state;
                if number >= from && useful && found.is_none() {
                    found = Some((number, after));
                }
            }
            first_return = first_return.min(operation.returned.unwrap_or(u64::MAX));
        }
        found
    }
