//! Two clients wrote without seeing each other. Which write is the newer one? Neither is, and both are kept.
//!
//! Each write has a [`Dot`], a name that no other write has, and remembers its past: the dots of the writes that its client
//! had read. A write replaces exactly the writes of its past. What is left are siblings.
//!
//! Invariant: a node that knows the dot `n` of another node knows, or has replaced, every earlier dot of that node. So a
//! vector can say "all dots up to n". It holds because nodes always send each other all versions of a key, never one alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The number of a node.
pub type Node = u8;

/// The name of a write: the node that took it, and the number that this node gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dot {
    /// The node that took the write.
    pub node: Node,
    /// It counts the writes of this key that the node has taken.
    pub counter: u64,
}

/// A version vector: for each node, all of its dots up to this counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vector(pub BTreeMap<Node, u64>);

impl Vector {
    /// Whether it contains this dot.
    pub fn has(&self, dot: Dot) -> bool {
        self.counter(dot.node) >= dot.counter
    }

    /// The counter of the last dot of this node that it contains.
    pub fn counter(&self, node: Node) -> u64 {
        self.0.get(&node).copied().unwrap_or_default()
    }

    /// Adds a dot, and with it the earlier ones of its node.
    pub fn add(&mut self, dot: Dot) {
        let counter = self.0.entry(dot.node).or_default();
        *counter = dot.counter.max(*counter);
    }

    /// Adds all dots of another vector.
    pub fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|(&node, &counter)| self.add(Dot { node, counter }));
    }
}

/// A value, with the write that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The value.
    pub value: String,
    /// The write.
    pub dot: Dot,
    /// The writes that its client had read: this one replaces them.
    pub past: Vector,
}

// ANCHOR: merge
/// Adds the versions of another node, and drops every version that another one replaces.
pub fn merge(ours: &mut Vec<Version>, theirs: &[Version]) {
    for version in theirs {
        if !ours.iter().any(|it| it.dot == version.dot) {
            ours.push(version.clone());
        }
    }
    let replaced = |dot: Dot, all: &[Version]| all.iter().any(|it| it.past.has(dot));
    let all = ours.clone();
    ours.retain(|it| !replaced(it.dot, &all));
    ours.sort_by_key(|it| it.dot);
}
// ANCHOR_END: merge

/// All that a client knows after it has read these versions.
pub fn context(versions: &[Version]) -> Vector {
    let mut context = Vector::default();
    for version in versions {
        context.join(&version.past);
        context.add(version.dot);
    }
    context
}

// ANCHOR: write
/// A new write at this node, by a client that had read `past`.
pub fn write(versions: &mut Vec<Version>, node: Node, value: String, past: Vector) {
    let mut known = context(versions);
    known.join(&past);
    // Not a dot of the past: two clients with the same past write two versions, through one node too.
    let dot = Dot { node, counter: known.counter(node) + 1 };
    merge(versions, &[Version { value, dot, past }]);
}
// ANCHOR_END: write

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(versions: &[Version]) -> Vec<&str> {
        versions.iter().map(|version| version.value.as_str()).collect()
    }

    #[test]
    fn a_write_replaces_what_its_client_has_read_and_nothing_else() {
        let mut at_0 = Vec::new();
        write(&mut at_0, 0, "first".to_owned(), Vector::default());
        let read = context(&at_0);
        write(&mut at_0, 0, "second".to_owned(), read.clone());
        assert_eq!(values(&at_0), ["second"]);
        // Another client had read the first value too.
        write(&mut at_0, 0, "other".to_owned(), read);
        assert_eq!(values(&at_0), ["second", "other"]);
        let both = context(&at_0);
        write(&mut at_0, 1, "merged".to_owned(), both);
        assert_eq!(values(&at_0), ["merged"]);
    }

    #[test]
    fn two_blind_writes_through_one_node_are_both_kept() {
        let mut versions = Vec::new();
        write(&mut versions, 0, "a".to_owned(), Vector::default());
        write(&mut versions, 0, "b".to_owned(), Vector::default());
        assert_eq!(values(&versions), ["a", "b"]);
    }

    /// A step of a random history on three nodes.
    #[derive(Clone, Debug)]
    enum Step {
        /// This client writes through this node, with what it has read.
        Write(usize, usize),
        /// This client reads from this node.
        Read(usize, usize),
        /// One node sends its versions to another.
        Send(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..3_usize, 0..3_usize).prop_map(|(client, node)| Step::Write(client, node)),
            (0..3_usize, 0..3_usize).prop_map(|(client, node)| Step::Read(client, node)),
            (0..3_usize, 0..3_usize).prop_map(|(from, to)| Step::Send(from, to)),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// We keep, beside the vectors, what each client has really read: the set of all writes that it knows of.
        #[test]
        fn no_write_vanishes_unless_somebody_who_had_read_it_replaced_it(steps in steps()) {
            use std::collections::BTreeSet;
            let mut nodes: [Vec<Version>; 3] = Default::default();
            let mut clients: [(Vector, BTreeSet<usize>); 3] = Default::default();
            // For each write, the writes that its client knew.
            let mut knew: Vec<BTreeSet<usize>> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(client, node) => {
                        let (past, known) = clients[client].clone();
                        let number = knew.len().to_string();
                        write(&mut nodes[node], u8::try_from(node).unwrap(), number, past);
                        knew.push(known);
                    }
                    Step::Read(client, node) => {
                        let (vector, known) = &mut clients[client];
                        *vector = context(&nodes[node]);
                        known.clear();
                        for version in &nodes[node] {
                            let number: usize = version.value.parse().unwrap();
                            known.insert(number);
                            known.extend(&knew[number]);
                        }
                    }
                    Step::Send(from, to) => {
                        let sent = nodes[from].clone();
                        merge(&mut nodes[to], &sent);
                    }
                }
            }
            let mut all = Vec::new();
            for node in &nodes {
                merge(&mut all, node);
            }
            let kept: BTreeSet<usize> = all.iter().map(|it| it.value.parse().unwrap()).collect();
            for number in 0..knew.len() {
                let replaced = knew.iter().any(|known| known.contains(&number));
                prop_assert_eq!(kept.contains(&number), !replaced, "write {}", number);
            }
            // In any order.
            let mut backwards = Vec::new();
            for node in nodes.iter().rev() {
                merge(&mut backwards, node);
            }
            prop_assert_eq!(all, backwards);
        }
    }
}
