//! What does a node keep for a key, and how do two nodes agree on it? By merging, in any order and any number of times.

use edge::text::is_line;
use serde::{Deserialize, Serialize};

use crate::clock::Tag;
use crate::crdt::{Counter, Set};
use crate::version::{self, Vector, Version};

/// What kind of register a key is. The same key of another kind is another register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Concurrent writes are all kept, until a client has read them and writes again.
    Siblings,
    /// The last write wins, by the clock of the node that took it.
    Lww,
    /// Linearizable: every operation asks a majority, and a read writes back what it has seen.
    Atomic,
    /// A number to which amounts are added.
    Counter,
    /// Items that are inserted and removed.
    Set,
}

impl Kind {
    /// Each, with its name in a query.
    pub const ALL: [(&str, Self); 5] = [
        ("siblings", Self::Siblings),
        ("lww", Self::Lww),
        ("atomic", Self::Atomic),
        ("counter", Self::Counter),
        ("set", Self::Set),
    ];
}

/// A name that a client gives to a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// At most 200 bytes on one printable line.
    pub fn parse(text: String) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > 200 || !is_line(&text) {
            return Err("must be 1 to 200 bytes, on one printable line");
        }
        Ok(Self(text))
    }

    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The longest value, in bytes. Each node keeps it, and sends it whenever something of its key changes.
const LONGEST: usize = 16 * 1_024;

/// A value, or an item of a set, that is not too long.
pub fn within_limit(text: String) -> Result<String, &'static str> {
    if text.len() > LONGEST { Err("must be at most 16 KiB long") } else { Ok(text) }
}

/// A register: its kind and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// Its kind.
    pub kind: Kind,
    /// Its key.
    pub key: Key,
}

/// A value that has replaced all older ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Newest {
    /// Which of two is the newer one.
    pub tag: Tag,
    /// The value. It decides if a clock has given the same time twice, after a restart.
    pub value: String,
}

/// What a client wants to do to a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write a value, of a client that has read `past`.
    Put {
        /// The value.
        value: String,
        /// What it replaces, if the register keeps siblings.
        past: Vector,
    },
    /// Add this amount to a counter.
    Add(i64),
    /// Insert this item into a set.
    Insert(String),
    /// Remove this item from a set.
    Remove(String),
}

/// What a node knows of a register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Of a register with siblings.
    Versions(Vec<Version>),
    /// Of a register with one value, if it was written.
    Newest(Option<Newest>),
    /// Of a counter.
    Counter(Counter),
    /// Of a set.
    Set(Set),
}

impl Record {
    /// Nothing was written yet.
    pub fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Siblings => Self::Versions(Vec::new()),
            Kind::Lww | Kind::Atomic => Self::Newest(None),
            Kind::Counter => Self::Counter(Counter::default()),
            Kind::Set => Self::Set(Set::default()),
        }
    }

    /// Takes in what another node knows.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Versions(ours), Self::Versions(theirs)) => version::merge(ours, theirs),
            // `None` is less than every value.
            (Self::Newest(ours), Self::Newest(theirs)) if *ours < *theirs => {
                ours.clone_from(theirs);
            }
            (Self::Counter(ours), Self::Counter(theirs)) => ours.merge(theirs),
            (Self::Set(ours), Self::Set(theirs)) => ours.merge(theirs),
            // A slot has one kind, so its records are of one kind too.
            _ => {}
        }
    }

    /// Its values: one, unless there are siblings, or the items of a set. `None` if it was never written.
    pub fn values(&self) -> Option<Vec<String>> {
        let values: Vec<_> = match self {
            Self::Versions(versions) => versions.iter().map(|it| it.value.clone()).collect(),
            Self::Newest(newest) => newest.iter().map(|it| it.value.clone()).collect(),
            Self::Counter(counter) => counter.value().iter().map(ToString::to_string).collect(),
            Self::Set(set) if set.is_new() => return None,
            Self::Set(set) => return Some(set.items().into_iter().map(str::to_owned).collect()),
        };
        (!values.is_empty()).then_some(values)
    }

    /// The number in the tag of its value; 0 if it has none.
    pub fn number(&self) -> u64 {
        match self {
            Self::Newest(Some(newest)) => newest.tag.number,
            _ => 0,
        }
    }

    /// What a client knows after it has read it.
    pub fn context(&self) -> Vector {
        match self {
            Self::Versions(versions) => version::context(versions),
            Self::Newest(_) | Self::Counter(_) | Self::Set(_) => Vector::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(number: u64, node: u8, value: &str) -> Record {
        Record::Newest(Some(Newest { tag: Tag { number, node }, value: value.to_owned() }))
    }

    #[test]
    fn the_greater_tag_wins_in_any_order() {
        let all = [newest(1, 0, "a"), newest(1, 1, "b"), newest(2, 0, "c"), newest(2, 0, "d")];
        let merged = |order: &[usize]| {
            let mut record = Record::empty(Kind::Lww);
            for &n in order {
                record.merge(&all[n]);
            }
            record
        };
        assert_eq!(merged(&[0, 1]).values().unwrap(), ["b"]);
        assert_eq!(merged(&[0, 1, 2]).values().unwrap(), ["c"]);
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 2, 0]] {
            assert_eq!(merged(&order).values().unwrap(), ["d"], "{order:?}");
        }
    }

    #[test]
    fn a_key_is_one_printable_line() {
        for good in ["a", "a b", "a/b", "../x", "Łukasz", "👩‍🚀", "%00", &"x".repeat(200)] {
            assert!(Key::parse(good.to_owned()).is_ok(), "{good:?}");
        }
        for bad in ["", "a\0", "a\nb", "\u{2028}", "\u{1b}[31m", &"x".repeat(201)] {
            assert!(Key::parse(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
