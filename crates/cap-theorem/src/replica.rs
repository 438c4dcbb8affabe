//! What does one node do by itself? It keeps its records in memory and in its log. Changes that come while the disk is
//! busy are written together.
//!
//! Invariant: nothing is in memory that is not in the log. So nobody reads a value that a kill could take back.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, mpsc},
};

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
    /// Changes that wait for the log. Each one holds a thread that tokio keeps for blocking work, so there are at most 512.
    waiting: Mutex<Vec<Waiting>>,
    /// Whoever holds it writes everything that waits. Each record of the log is a list of slots with their new records.
    log: Mutex<Log>,
    records: RwLock<HashMap<Slot, Record>>,
}

/// A change that is not in the log yet.
#[derive(Debug)]
struct Waiting {
    slot: Slot,
    step: Step,
    /// Where the result goes.
    tell: mpsc::SyncSender<Result<Record>>,
}

/// What is to be done to a record.
#[derive(Debug)]
enum Step {
    /// It takes in what another node knows.
    Merge(Record),
    /// A client changes it. `seen` is the greatest number that other nodes know, for an atomic register.
    Write { change: Change, seen: u64 },
}

impl Replica {
    /// Opens the log in this folder and reads it.
    pub fn open(home: &Path, owner: &Owner, clock: Clock) -> std::result::Result<Self, OpenError> {
        let (log, lines) = Log::open(home, owner)?;
        let mut records = HashMap::new();
        for line in lines {
            let together: Vec<(Slot, Record)> =
                serde_json::from_slice(&line).map_err(|error| OpenError::Io(error.into()))?;
            records.extend(together);
        }
        let (log, records) = (Mutex::new(log), RwLock::new(records));
        Ok(Self { node: owner.node, clock, waiting: Mutex::default(), log, records })
    }

    /// What this node knows of a register.
    pub fn get(&self, slot: &Slot) -> Record {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.get(slot).cloned().unwrap_or_else(|| Record::empty(slot.kind))
    }

    /// How many registers it knows.
    pub fn registers(&self) -> usize {
        self.records.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes in what another node knows. Returns what this node knows then.
    pub fn merge(&self, slot: &Slot, other: Record) -> Result<Record> {
        self.change(slot, Step::Merge(other))
    }

    /// Changes a register at this node. `seen` is the greatest number that other nodes know, for an atomic register.
    pub fn write(&self, slot: &Slot, change: Change, seen: u64) -> Result<Record> {
        self.change(slot, Step::Write { change, seen })
    }

    // ANCHOR: local_write
    /// Does it. After an error, do not use the record: it may be changed in part.
    fn step(&self, slot: &Slot, step: Step, record: &mut Record) -> Result<()> {
        let (node, known) = (self.node, record.number());
        let (change, seen) = match step {
            Step::Merge(other) => {
                record.merge(&other);
                return Ok(());
            }
            Step::Write { change, seen } => (change, seen),
        };
        match (record, change) {
            (Record::Versions(versions), Change::Put { value, past }) => {
                version::write(versions, node, value, past);
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
                let tag = Tag { number, node };
                record.merge(&Record::Newest(Some(Newest { tag, value })));
            }
            (Record::Counter(counter), Change::Add(amount)) => counter.add(node, amount),
            (Record::Set(set), Change::Insert(item)) => {
                set.insert(node, &item);
                if set.items().len() > MOST_VALUES {
                    return Err(Error::invalid("insert", "would be one item too many"));
                }
            }
            (Record::Set(set), Change::Remove(item)) => set.remove(&item),
            _ => return Err(Error::invalid("kind", "this register takes another change")),
        }
        Ok(())
    }
    // ANCHOR_END: local_write

    // ANCHOR: change
    /// Changes a record: first in the log, then in memory. It waits for the disk, so no async task may call it directly.
    fn change(&self, slot: &Slot, step: Step) -> Result<Record> {
        let (tell, told) = mpsc::sync_channel(1);
        guard(&self.waiting).push(Waiting { slot: slot.clone(), step, tell });
        let mut log = guard(&self.log);
        // While we waited for the log, its holder may have written our change together with its own. Those that wait now
        // come for the log themselves.
        if let Ok(outcome) = told.try_recv() {
            return outcome;
        }
        let together = std::mem::take(&mut *guard(&self.waiting));
        self.write_together(&mut log, together);
        told.recv().map_err(|error| Error::Internal(error.to_string()))?
    }

    /// Group commit: one record of the log, with one flush. A kill leaves all of these changes, or none.
    fn write_together(&self, log: &mut Log, together: Vec<Waiting>) {
        let (mut changed, mut ended) = (HashMap::new(), Vec::new());
        for Waiting { slot, step, tell } in together {
            let before = changed.get(&slot).cloned().unwrap_or_else(|| self.get(&slot));
            let mut record = before.clone();
            let outcome = self.step(&slot, step, &mut record);
            if outcome.is_ok() && record != before {
                changed.insert(slot, record.clone());
            }
            ended.push((tell, outcome.map(|()| record)));
        }
        let written = append(log, &changed);
        if written.is_ok() {
            self.records.write().unwrap_or_else(PoisonError::into_inner).extend(changed);
        }
        for (tell, outcome) in ended {
            // Its thread waits in `change`.
            let _ = tell.send(outcome.and_then(|record| written.clone().map(|()| record)));
        }
    }
    // ANCHOR_END: change
}

/// Writes the new records, if there are any.
fn append(log: &mut Log, changed: &HashMap<Slot, Record>) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let entries: Vec<_> = changed.iter().collect();
    Ok(log.append(&serde_json::to_vec(&entries).map_err(std::io::Error::from)?)?)
}

/// A panic leaves at most a torn frame, which the next append cuts off, so poison is ignored. The changes of that batch get a
/// 500.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

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
                replica.write(&slot(kind), put("green \0 \u{2028}", &Vector::default()), 7).unwrap()
            };
            let replica = open(folder.path(), 0);
            assert_eq!(replica.get(&slot(kind)), before, "{kind:?}");
            assert_eq!(before.values().unwrap(), ["green \0 \u{2028}"]);
        }
        assert_eq!(open(folder.path(), 0).registers(), 3);
    }

    #[test]
    fn an_atomic_write_gets_a_number_that_nobody_has_yet() {
        let folder = tempdir().unwrap();
        let replica = open(folder.path(), 0);
        let slot = slot(Kind::Atomic);
        let numbers: Vec<_> = [0, 5, 3, 6]
            .map(|seen| replica.write(&slot, put("v", &Vector::default()), seen).unwrap().number())
            .into();
        assert_eq!(numbers, [1, 6, 7, 8]);
    }

    #[test]
    fn a_client_that_never_reads_is_stopped() {
        let folder = tempdir().unwrap();
        let replica = open(folder.path(), 0);
        let slot = slot(Kind::Siblings);
        for n in 0..MOST_VALUES {
            replica.write(&slot, put(&n.to_string(), &Vector::default()), 0).unwrap();
        }
        let refused = replica.write(&slot, put("more", &Vector::default()), 0);
        assert!(matches!(refused, Err(Error::Crowded)), "{refused:?}");
        assert_eq!(replica.get(&slot).values().unwrap().len(), MOST_VALUES, "it was refused");
        let past = replica.get(&slot).context();
        let one = replica.write(&slot, put("one", &past), 0).unwrap();
        assert_eq!(one.values().unwrap(), ["one"]);
    }

    #[test]
    fn changes_that_wait_for_the_disk_are_written_together() {
        let folder = tempdir().unwrap();
        let replica = open(folder.path(), 0);
        let slot = slot(Kind::Counter);
        // While the disk is busy, ten clients come. One of them puts a text into a counter, which is refused.
        let busy = guard(&replica.log);
        let ended = thread::scope(|scope| {
            let clients: Vec<_> = (0..10)
                .map(|n| {
                    let change = if n == 0 { put("v", &Vector::default()) } else { Change::Add(n) };
                    scope.spawn(|| replica.write(&slot, change, 0))
                })
                .collect();
            while guard(&replica.waiting).len() < 10 {
                thread::yield_now();
            }
            drop(busy);
            clients.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(ended.iter().filter(|it| it.is_err()).count(), 1, "{ended:?}");
        assert_eq!(replica.get(&slot).values().unwrap(), ["45"]);
        drop(replica);
        let owner = Owner { cluster: "ours".to_owned(), node: 0, nodes: 3 };
        let (log, records) = Log::open(folder.path(), &owner).unwrap();
        drop(log);
        assert_eq!(records.len(), 1, "one record, with one flush");
        assert_eq!(open(folder.path(), 0).get(&slot).values().unwrap(), ["45"]);
    }

    #[test]
    fn a_change_that_another_holder_has_written_is_answered_without_a_further_flush() {
        let folder = tempdir().unwrap();
        let replica = open(folder.path(), 0);
        let slot = slot(Kind::Counter);
        let mut busy = guard(&replica.log);
        thread::scope(|scope| {
            let client = scope.spawn(|| replica.write(&slot, Change::Add(1), 0));
            while guard(&replica.waiting).is_empty() {
                thread::yield_now();
            }
            let together = std::mem::take(&mut *guard(&replica.waiting));
            replica.write_together(&mut busy, together);
            // The next change, whose own thread would come for the log.
            let (tell, _told) = mpsc::sync_channel(1);
            let step = Step::Write { change: Change::Add(2), seen: 0 };
            guard(&replica.waiting).push(Waiting { slot: slot.clone(), step, tell });
            drop(busy);
            client.join().unwrap().unwrap();
        });
        assert_eq!(guard(&replica.waiting).len(), 1);
        assert_eq!(replica.get(&slot).values().unwrap(), ["1"]);
    }
}
