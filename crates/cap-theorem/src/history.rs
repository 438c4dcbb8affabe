//! What happened? A history says who asked for what, from when to when, and what came back. It is all that a client can
//! know of a store, and all that a judgement may rest on.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// A node remembers this many operations, the newest.
const REMEMBERED: usize = 10_000;

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
