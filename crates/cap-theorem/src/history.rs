//! What happened? A history says who asked for what, from when to when, and what came back. It is all that a client can
//! know of a store, and all that a judgement may rest on.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// A node remembers this many operations, the newest: with the longest values, 32 MB.
const REMEMBERED: usize = 2_000;

/// What a client did to one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It wrote this value.
    Write(String),
    /// It read this value, or nothing.
    Read(Option<String>),
    /// It replaced one value by another if it was there, and heard whether it was. Our store has no such call, but etcd
    /// has, and published histories use it.
    Cas {
        /// The value that has to be there.
        from: String,
        /// The value that takes its place.
        to: String,
        /// Whether it was there; `None` if no answer came.
        done: Option<bool>,
    },
}

/// One operation. Times may have any unit, as long as one clock gave all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// What it was about.
    pub key: String,
    /// What was asked, and what came back.
    pub action: Action,
    /// When the client asked.
    pub called: u64,
    /// When it had its answer. `None`: it never came, and a write may take effect at any time from then on.
    pub returned: Option<u64>,
}

impl Operation {
    /// Whether it had ended before the other one began. Only then is their order certain.
    pub fn precedes(&self, other: &Self) -> bool {
        self.returned.is_some_and(|returned| returned < other.called)
    }

    /// In words, for a drawing: `write x`, `read x`.
    pub fn words(&self) -> String {
        match &self.action {
            Action::Write(value) => format!("write {value}"),
            Action::Read(Some(value)) => format!("read {value}"),
            Action::Read(None) => "read nothing".to_owned(),
            Action::Cas { from, to, done } => {
                let end = match done {
                    Some(true) => "",
                    Some(false) => ": no",
                    None => ": ?",
                };
                format!("{from} → {to}{end}")
            }
        }
    }
}

/// The operations that a node has coordinated.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Operation>>);

impl History {
    /// Remembers an operation. When there is no room, the oldest one is forgotten.
    pub fn add(&self, operation: Operation) {
        let mut operations = self.lock();
        if operations.len() == REMEMBERED {
            operations.pop_front();
        }
        operations.push_back(operation);
    }

    /// All that are remembered, of all keys or of one.
    pub fn of(&self, key: Option<&str>) -> Vec<Operation> {
        let operations = self.lock();
        operations.iter().filter(|it| key.is_none_or(|key| it.key == key)).cloned().collect()
    }

    /// Each operation is added or removed whole, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Operation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client notices: how often each promise was broken. The history has to write each value once.
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
