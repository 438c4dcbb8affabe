//! What does one node do by itself? It keeps its records in memory and in its log, and changes one at a time.
//!
//! Invariant: nothing is in memory that is not in the log. So nobody reads a value that a kill could take back.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Tag};
use crate::error::{Error, Result};
use crate::log::{Log, OpenError, Owner};
use crate::record::{Change, Kind, Newest, Record, Slot};
use crate::version::{self, Node};

/// A client that writes without reading makes siblings. After this many it has to read first. A set has as many items at
/// most. Each node sends all of them whenever one changes.
const MOST_VALUES: usize = 64;

/// The data of one node.
#[derive(Debug)]
pub struct Replica {
    /// Its number.
    pub node: Node,
    clock: Clock,
    /// Its holder makes the next change.
    log: Mutex<Log>,
    records: RwLock<HashMap<Slot, Record>>,
}

/// A line of the log: the new record of a slot.
#[derive(Serialize, Deserialize)]
struct Entry {
    slot: Slot,
    record: Record,
}

impl Replica {
    /// Opens the log in this folder and reads it.
    pub fn open(
        folder: &Path,
        owner: &Owner,
        clock: Clock,
    ) -> std::result::Result<Self, OpenError> {
        let (log, lines) = Log::open(folder, owner)?;
        let mut records = HashMap::new();
        for line in lines {
            let Entry { slot, record } =
                serde_json::from_slice(&line).map_err(|error| OpenError::Io(error.into()))?;
            records.insert(slot, record);
        }
        let (log, records) = (Mutex::new(log), RwLock::new(records));
        Ok(Self { node: owner.node, clock, log, records })
    }

    /// What this node knows of a register.
    pub fn get(&self, slot: &Slot) -> Record {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.get(slot).cloned().unwrap_or_else(|| Record::empty(slot.kind))
    }

    /// How many registers it knows.
    pub fn len(&self) -> usize {
        self.records.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what another node knows. Returns what this node knows then.
    pub fn merge(&self, slot: &Slot, other: &Record) -> Result<Record> {
        self.change(slot, |record| {
            record.merge(other);
            Ok(())
        })
    }

    // ANCHOR: local_write
    /// Changes a register at this node. `seen` is the greatest number that other nodes know, for an atomic register.
    pub fn write(&self, slot: &Slot, change: &Change, seen: u64) -> Result<Record> {
        let node = self.node;
        self.change(slot, |record| {
            let known = record.number();
            match (record, change) {
                (Record::Versions(versions), Change::Put { value, past }) => {
                    version::write(versions, node, value.clone(), past.clone());
                    if versions.len() > MOST_VALUES {
                        return Err(Error::Crowded);
                    }
                }
                (record @ Record::Newest(_), Change::Put { value, .. }) => {
                    let number = match slot.kind {
                        Kind::Lww => self.clock.stamp(known),
                        // In the same step as the write, so two writes through this node have two numbers.
                        _ => seen.max(known) + 1,
                    };
                    let (tag, value) = (Tag { number, node }, value.clone());
                    record.merge(&Record::Newest(Some(Newest { tag, value })));
                }
                (Record::Counter(counter), Change::Add(amount)) => counter.add(node, *amount),
                (Record::Set(set), Change::Insert(item)) => {
                    set.insert(node, item);
                    if set.items().len() > MOST_VALUES {
                        return Err(Error::invalid("insert", "would be one item too many"));
                    }
                }
                (Record::Set(set), Change::Remove(item)) => set.remove(item),
                _ => {
                    return Err(Error::invalid(
                        "kind",
                        "this kind of register takes another change",
                    ));
                }
            }
            Ok(())
        })
    }
    // ANCHOR_END: local_write

    // ANCHOR: change
    /// Changes a record: first in the log, then in memory. It waits for the disk, so no async task may call it directly.
    fn change(
        &self,
        slot: &Slot,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<Record> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.get(slot);
        let mut record = before.clone();
        change(&mut record)?;
        if record != before {
            let entry = Entry { slot: slot.clone(), record: record.clone() };
            log.append(&serde_json::to_vec(&entry).map_err(std::io::Error::from)?)?;
            let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
            records.insert(entry.slot, entry.record);
        }
        Ok(record)
    }
    // ANCHOR_END: change
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;
    use crate::{record::Key, version::Vector};

    fn slot(kind: Kind) -> Slot {
        Slot { kind, key: Key::parse("tea".to_owned()).unwrap() }
    }

    fn put(value: &str, past: &Vector) -> Change {
        Change::Put { value: value.to_owned(), past: past.clone() }
    }

    fn open(folder: &Path, node: Node) -> Replica {
        let owner = Owner { cluster: "ours".to_owned(), node, nodes: 3 };
        Replica::open(folder, &owner, Clock::new(0, false)).unwrap()
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let folder = tempdir().unwrap();
        for kind in [Kind::Siblings, Kind::Lww, Kind::Atomic] {
            let before = {
                let replica = open(folder.path(), 0);
                replica
                    .write(&slot(kind), &put("green \0 \u{2028}", &Vector::default()), 7)
                    .unwrap()
            };
            let replica = open(folder.path(), 0);
            assert_eq!(replica.get(&slot(kind)), before, "{kind:?}");
            assert_eq!(before.values().unwrap(), ["green \0 \u{2028}"]);
        }
        assert_eq!(open(folder.path(), 0).len(), 3);
    }

    #[test]
    fn an_atomic_write_gets_a_number_that_nobody_has_yet() {
        let folder = tempdir().unwrap();
        let replica = open(folder.path(), 0);
        let slot = slot(Kind::Atomic);
        let numbers: Vec<_> = [0, 5, 3, 6]
            .map(|seen| replica.write(&slot, &put("v", &Vector::default()), seen).unwrap().number())
            .into();
        assert_eq!(numbers, [1, 6, 7, 8]);
    }

    #[test]
    fn a_client_that_never_reads_is_stopped() {
        let folder = tempdir().unwrap();
        let replica = open(folder.path(), 0);
        let slot = slot(Kind::Siblings);
        for n in 0..MOST_VALUES {
            replica.write(&slot, &put(&n.to_string(), &Vector::default()), 0).unwrap();
        }
        let refused = replica.write(&slot, &put("more", &Vector::default()), 0);
        assert!(matches!(refused, Err(Error::Crowded)), "{refused:?}");
        let past = replica.get(&slot).context();
        let one = replica.write(&slot, &put("one", &past), 0).unwrap();
        assert_eq!(one.values().unwrap(), ["one"]);
    }
}
