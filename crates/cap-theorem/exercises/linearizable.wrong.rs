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

    /// The first operation from `from` on that may come next and fits the value, and the value after it. It may come next
    /// if it was called before any other that is left had returned.
    fn next(&self, from: usize, state: State<'a>) -> Option<(usize, State<'a>)> {
        let mut first_return = u64::MAX;
        for (number, (_, operation)) in self.operations.iter().enumerate() {
            if self.is_taken(number) {
                continue;
            }
            if operation.called > first_return {
                return None;
            }
            if number >= from
                && let Some(after) = apply(operation, state)
            {
                return Some((number, after));
            }
            first_return = first_return.min(operation.returned.unwrap_or(u64::MAX));
        }
        None
    }
