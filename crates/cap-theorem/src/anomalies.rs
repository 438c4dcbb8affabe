//! What exactly does a client notice? A history that is not linearizable can still be good enough; these tests say which
//! promise it breaks. They need a history in which each value was written once.

use std::collections::HashMap;

use crate::history::{Action, Operation};

/// How often each promise was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anomalies {
    /// A read that returned a value although a newer one had been written before the read began.
    pub stale_reads: usize,
    /// The same, where the newer value was the client's own.
    pub own_writes_unread: usize,
    /// A read that returned an older value than the same client had read before.
    pub backward_reads: usize,
}

// ANCHOR: anomalies
/// Counts the anomalies.
pub fn count(history: &[Operation]) -> Anomalies {
    let mut writes = HashMap::new();
    for operation in history {
        if let Action::Write(value) = &operation.action {
            writes.insert((operation.key.as_str(), value.as_str()), operation);
        }
    }
    let write_of = |read: &Operation| match &read.action {
        Action::Read(Some(value)) => writes.get(&(read.key.as_str(), value.as_str())).copied(),
        _ => None,
    };
    let mut anomalies = Anomalies::default();
    for read in history.iter().filter(|it| matches!(it.action, Action::Read(_))) {
        let source = write_of(read);
        // It ended before the read began, and it is certainly newer than what was read.
        let is_newer = |write: &Operation| source.is_none_or(|source| source.precedes(write));
        let missed =
            |write: &Operation| write.key == read.key && write.precedes(read) && is_newer(write);
        let own = |write: &Operation| write.client == read.client && missed(write);
        let seen_newer = |earlier: &Operation| {
            earlier.client == read.client
                && earlier.key == read.key
                && earlier.precedes(read)
                && write_of(earlier).is_some_and(is_newer)
        };
        anomalies.stale_reads += usize::from(writes.values().copied().any(missed));
        anomalies.own_writes_unread += usize::from(writes.values().copied().any(own));
        anomalies.backward_reads += usize::from(history.iter().any(seen_newer));
    }
    anomalies
}
// ANCHOR_END: anomalies

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(client: u32, action: Action, called: u64) -> Operation {
        let returned = Some(called + 1);
        Operation { client, key: "x".to_owned(), action, called, returned }
    }

    fn write(client: u32, value: &str, called: u64) -> Operation {
        operation(client, Action::Write(value.to_owned()), called)
    }

    fn read(client: u32, value: &str, called: u64) -> Operation {
        let value = (value != "-").then(|| value.to_owned());
        operation(client, Action::Read(value), called)
    }

    fn counted(history: &[Operation]) -> (usize, usize, usize) {
        let Anomalies { stale_reads, own_writes_unread, backward_reads } = count(history);
        (stale_reads, own_writes_unread, backward_reads)
    }

    #[test]
    fn each_anomaly_is_counted_where_it_is() {
        let two = [write(0, "a", 0), write(1, "b", 10)];
        let and = |reads: &[Operation]| counted(&[&two[..], reads].concat());
        assert_eq!(and(&[read(2, "b", 20)]), (0, 0, 0));
        assert_eq!(and(&[read(2, "a", 20)]), (1, 0, 0));
        assert_eq!(and(&[read(1, "a", 20)]), (1, 1, 0));
        assert_eq!(and(&[read(2, "-", 20)]), (1, 0, 0));
        assert_eq!(and(&[read(2, "b", 20), read(2, "a", 30)]), (1, 0, 1));
        assert_eq!(and(&[read(2, "b", 20), read(3, "a", 30)]), (1, 0, 0));
    }

    #[test]
    fn of_two_writes_at_once_either_may_be_read() {
        let at_once = [write(0, "a", 0), write(1, "b", 1), read(2, "a", 10), read(2, "b", 20)];
        assert_eq!(counted(&at_once), (0, 0, 0));
        let pending = Operation { returned: None, ..write(0, "a", 0) };
        assert_eq!(counted(&[pending, read(1, "a", 5), read(2, "-", 10)]), (0, 0, 0));
    }
}
