//! Is a history linearizable? It is if each operation can be given one moment between its call and its return, so that a
//! register which does one thing at a time would have given the same answers in that order.
//!
//! This is the search of Wing and Gong, with Lowe's memory of what was tried: take an operation that may come next, and go
//! back when none fits. It looks at one key at a time, because a history is linearizable exactly if the part of each key
//! is (Herlihy and Wing). In general the search takes exponential time; in practice few operations overlap.

use std::collections::{BTreeMap, HashSet};

use crate::history::{Action, Operation};

/// What no order of the operations explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: String,
    /// The operation, by its place in the history, that had to come next when the longest order got stuck.
    pub at: usize,
    /// How many operations that order explains.
    pub explained: usize,
}

/// Whether the history is linearizable, key by key.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, operation) in history.iter().enumerate() {
        keys.entry(&operation.key).or_default().push(place);
    }
    for (key, places) in keys {
        let mut search = Search::of(history, &places);
        if let Err((at, explained)) = search.run() {
            return Err(Violation { key: key.to_owned(), at, explained });
        }
    }
    Ok(())
}

/// The value of the register.
type State<'a> = Option<&'a str>;

/// A search for an order of the operations on one key.
struct Search<'a> {
    /// The operations with their places in the history, in the order of their calls.
    operations: Vec<(usize, &'a Operation)>,
    /// A bit for each operation that has its place in the order.
    taken: Vec<u64>,
    /// Every set of operations that was taken before, with the value that it led to. Which order led there does not matter
    /// for what follows.
    tried: HashSet<(Vec<u64>, State<'a>)>,
}

impl<'a> Search<'a> {
    fn of(history: &'a [Operation], places: &[usize]) -> Self {
        let mut operations: Vec<_> = places.iter().map(|&place| (place, &history[place])).collect();
        let read: HashSet<_> = operations.iter().filter_map(|&(_, it)| value_read(it)).collect();
        let cas = operations.iter().any(|(_, it)| matches!(it.action, Action::Cas { .. }));
        // An operation that got no answer says nothing, unless somebody saw its value.
        operations.retain(|(_, operation)| match &operation.action {
            _ if operation.returned.is_some() => true,
            Action::Read(_) => false,
            Action::Write(value) => cas || read.contains(value.as_str()),
            Action::Cas { .. } => true,
        });
        operations.sort_by_key(|(_, operation)| operation.called);
        let taken = vec![0; operations.len().div_ceil(64)];
        Self { operations, taken, tried: HashSet::new() }
    }

    // ANCHOR: search
    /// Takes operations until none is left that has to be taken. The error is the operation that could not be taken when
    /// the order was longest, and how long it was.
    fn run(&mut self) -> Result<(), (usize, usize)> {
        let mut left = self.operations.iter().filter(|(_, it)| it.returned.is_some()).count();
        let (mut order, mut state, mut from) = (Vec::<(usize, State<'a>)>::new(), None, 0);
        let mut stuck = None;
        while left > 0 {
            if let Some((next, after)) = self.next(from, state) {
                self.flip(next);
                if self.tried.insert((self.taken.clone(), after)) {
                    order.push((next, state));
                    left -= usize::from(self.operations[next].1.returned.is_some());
                    (state, from) = (after, 0);
                    continue;
                }
                self.flip(next);
                if !only_looks(self.operations[next].1) {
                    from = next + 1;
                    continue;
                }
            }
            // Nothing fits. Note where, take the last choice back, and go on behind it.
            if stuck.is_none_or(|(_, longest)| order.len() > longest) {
                stuck = self.due().map(|place| (place, order.len()));
            }
            loop {
                let Some((last, before)) = order.pop() else {
                    return Err(stuck.unwrap_or_default());
                };
                self.flip(last);
                left += usize::from(self.operations[last].1.returned.is_some());
                (state, from) = (before, last + 1);
                // That an operation which only looks was taken excluded no order.
                if !only_looks(self.operations[last].1) {
                    break;
                }
            }
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
    // ANCHOR_END: search

    /// The place of the operation that returned first, of those that are left.
    fn due(&self) -> Option<usize> {
        let left = self.operations.iter().enumerate().filter(|(number, _)| !self.is_taken(*number));
        let ended = left.filter_map(|(_, (place, it))| Some((it.returned?, *place)));
        ended.min().map(|(_, place)| place)
    }

    fn is_taken(&self, number: usize) -> bool {
        self.taken[number / 64] & (1 << (number % 64)) != 0
    }

    fn flip(&mut self, number: usize) {
        self.taken[number / 64] ^= 1 << (number % 64);
    }
}

// ANCHOR: apply
/// The value of the register after this operation. `None` if a register with this value gives another answer.
fn apply<'a>(operation: &'a Operation, state: State<'a>) -> Option<State<'a>> {
    match &operation.action {
        Action::Write(value) => Some(Some(value.as_str())),
        Action::Read(value) => (value.as_deref() == state).then_some(state),
        Action::Cas { from, to, done } => {
            let fits = state == Some(from.as_str());
            let after = if fits { Some(to.as_str()) } else { state };
            done.is_none_or(|done| done == fits).then_some(after)
        }
    }
}
// ANCHOR_END: apply

/// Whether it leaves the value as it is, whatever that is.
fn only_looks(operation: &Operation) -> bool {
    matches!(operation.action, Action::Read(_) | Action::Cas { done: Some(false), .. })
}

fn value_read(operation: &Operation) -> Option<&str> {
    match &operation.action {
        Action::Read(value) => value.as_deref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn operation(action: Action, called: u64, returned: Option<u64>) -> Operation {
        Operation { client: 0, key: "x".to_owned(), action, called, returned }
    }

    fn write(value: &str, called: u64, returned: u64) -> Operation {
        operation(Action::Write(value.to_owned()), called, Some(returned))
    }

    fn read(value: &str, called: u64, returned: u64) -> Operation {
        let value = (value != "-").then(|| value.to_owned());
        operation(Action::Read(value), called, Some(returned))
    }

    fn cas(from: &str, to: &str, done: Option<bool>, called: u64) -> Operation {
        let action = Action::Cas { from: from.to_owned(), to: to.to_owned(), done };
        operation(action, called, done.map(|_| called + 1))
    }

    fn holds(history: &[Operation]) -> bool {
        check(history).is_ok()
    }

    #[test]
    fn a_read_beside_a_write_may_see_either_value() {
        assert!(holds(&[write("1", 0, 100), read("1", 25, 75), read("-", 30, 60)]));
    }

    #[test]
    fn a_value_that_was_read_is_never_unread() {
        let back = [write("1", 0, 100), read("1", 10, 30), read("-", 40, 90)];
        let violation = check(&back).unwrap_err();
        assert_eq!((violation.at, violation.explained), (2, 2));
    }

    #[test]
    fn what_was_written_is_read_after_the_write_has_returned() {
        assert!(!holds(&[write("1", 0, 10), read("-", 11, 20)]));
        assert!(holds(&[write("1", 0, 10), read("-", 10, 20)]), "they touch");
        assert!(!holds(&[write("1", 0, 10), write("2", 11, 12), read("1", 13, 14)]));
    }

    #[test]
    fn a_write_without_an_answer_takes_effect_or_not_but_never_twice() {
        let pending = Operation { returned: None, ..write("1", 0, 1) };
        assert!(holds(&[pending.clone(), read("-", 5, 6)]));
        assert!(holds(&[pending.clone(), read("-", 5, 6), read("1", 7, 8)]));
        assert!(!holds(&[pending, read("1", 5, 6), write("2", 7, 8), read("1", 9, 10)]));
    }

    #[test]
    fn each_key_is_a_register_of_its_own() {
        let other = Operation { key: "y".to_owned(), ..read("-", 20, 30) };
        assert!(holds(&[write("1", 0, 10), other]));
    }

    #[test]
    fn a_value_that_was_replaced_is_no_longer_there() {
        let one = || write("1", 0, 1);
        let done = cas("1", "2", Some(true), 2);
        assert!(holds(&[one(), done.clone(), read("2", 4, 5)]));
        assert!(!holds(&[one(), done, read("1", 4, 5)]));
        assert!(!holds(&[one(), cas("1", "2", Some(false), 2)]));
        for seen in ["1", "2"] {
            assert!(holds(&[one(), cas("1", "2", None, 2), read(seen, 4, 5)]));
        }
    }

    /// Tries every order.
    fn by_brute_force(left: &[Operation], state: Option<&str>) -> bool {
        if left.iter().all(|operation| operation.returned.is_none()) {
            return true;
        }
        (0..left.len()).any(|n| {
            let mut rest = left.to_vec();
            let next = rest.remove(n);
            !rest.iter().any(|other| other.precedes(&next))
                && apply(&next, state).is_some_and(|after| by_brute_force(&rest, after))
        })
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let action = prop_oneof![
            (0..3_u8).prop_map(|value| Action::Write(value.to_string())),
            (0..3_u8).prop_map(|value| Action::Read(Some(value.to_string()))),
            Just(Action::Read(None)),
            (0..3_u8, 0..3_u8, any::<bool>()).prop_map(|(from, to, done)| Action::Cas {
                from: from.to_string(),
                to: to.to_string(),
                done: Some(done),
            }),
        ];
        let one =
            (action, 0..20_u64, 0..8_u64, 0..6_u8).prop_map(|(mut action, called, took, ends)| {
                let returned = (ends > 0).then_some(called + took);
                if let (None, Action::Cas { done, .. }) = (returned, &mut action) {
                    *done = None;
                }
                operation(action, called, returned)
            });
        prop::collection::vec(one, 0..7)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_search_finds_an_order_exactly_if_there_is_one(operations in operations()) {
            prop_assert_eq!(check(&operations).is_ok(), by_brute_force(&operations, None));
        }
    }
}
