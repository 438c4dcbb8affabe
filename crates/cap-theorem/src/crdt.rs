//! Which values can both sides of a cut change, so that nothing is lost and nobody has to decide? Those whose changes can
//! be added up in any order: conflict-free replicated data types.
//!
//! What cannot be done like this is a limit: a side that does not know the other's changes cannot know the sum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::version::{Dot, Node, Vector};

// ANCHOR: counter
/// A counter. Each node adds up what it took itself: both numbers of a node only grow, so of two the greater is the newer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter(BTreeMap<Node, (u64, u64)>);

impl Counter {
    /// Adds an amount, or takes one away, at this node.
    pub fn add(&mut self, node: Node, amount: i64) {
        let (more, less) = self.0.entry(node).or_default();
        let of_both = if amount < 0 { less } else { more };
        *of_both = of_both.saturating_add(amount.unsigned_abs());
    }

    /// Takes in what another node knows.
    pub fn merge(&mut self, other: &Self) {
        for (&node, &(more, less)) in &other.0 {
            let ours = self.0.entry(node).or_default();
            *ours = (ours.0.max(more), ours.1.max(less));
        }
    }

    /// The sum of all that was added; `None` if nothing was.
    pub fn value(&self) -> Option<i128> {
        let sum = self.0.values().map(|&(more, less)| i128::from(more) - i128::from(less)).sum();
        (!self.0.is_empty()).then_some(sum)
    }
}
// ANCHOR_END: counter

// ANCHOR: set
/// A set. Each item has the dots under which it was inserted. Removing it removes the dots that this node has seen, so an
/// item that is inserted on the other side at the same time stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    items: Vec<(Dot, String)>,
    /// Every dot that was given out and is known here, also those of items that were removed.
    seen: Vector,
}

impl Set {
    /// Inserts an item at this node.
    pub fn insert(&mut self, node: Node, item: &str) {
        let dot = Dot { node, counter: self.seen.counter(node) + 1 };
        self.remove(item);
        self.seen.add(dot);
        self.items.push((dot, item.to_owned()));
        self.items.sort();
    }

    /// Removes an item, as far as this node knows it.
    pub fn remove(&mut self, item: &str) {
        self.items.retain(|(_, it)| it != item);
    }

    /// Takes in what another node knows. What one has and the other has seen, but no longer has, was removed there.
    pub fn merge(&mut self, other: &Self) {
        let stays = |dot: Dot, there: &Self| {
            !there.seen.has(dot) || there.items.iter().any(|(it, _)| *it == dot)
        };
        let ours = std::mem::take(&mut self.items);
        let mut items: Vec<_> =
            ours.iter().filter(|(dot, _)| stays(*dot, other)).cloned().collect();
        let theirs = other.items.iter().filter(|(dot, _)| !self.seen.has(*dot));
        items.extend(theirs.cloned());
        items.sort();
        self.items = items;
        self.seen.join(&other.seen);
    }

    /// The items, in the order of the alphabet.
    pub fn items(&self) -> Vec<&str> {
        let mut items: Vec<_> = self.items.iter().map(|(_, item)| item.as_str()).collect();
        items.sort_unstable();
        items.dedup();
        items
    }

    /// Whether nothing was ever inserted.
    pub fn is_new(&self) -> bool {
        self.seen == Vector::default()
    }
}
// ANCHOR_END: set

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_item_that_is_removed_here_and_inserted_there_stays() {
        let mut here = Set::default();
        here.insert(0, "tea");
        let mut there = here.clone();
        here.remove("tea");
        there.insert(1, "tea");
        there.insert(1, "milk");
        for (mut one, other) in [(here.clone(), &there), (there.clone(), &here)] {
            one.merge(other);
            assert_eq!(one.items(), ["milk", "tea"]);
        }
        let mut removed = there.clone();
        removed.remove("tea");
        removed.merge(&there);
        assert_eq!(removed.items(), ["milk"], "what is removed does not come back");
    }

    proptest! {
        #[test]
        fn a_counter_is_the_sum_in_whatever_order_the_nodes_meet(
            steps in prop::collection::vec((0..3_usize, 0..3_usize, -9..9_i64), 0..30),
        ) {
            let mut nodes: [Counter; 3] = Default::default();
            let mut sum = 0;
            for (node, met, amount) in steps {
                nodes[node].add(u8::try_from(node).unwrap(), amount);
                sum += i128::from(amount);
                let other = nodes[met].clone();
                nodes[node].merge(&other);
            }
            let mut all = Counter::default();
            for _ in 0..2 {
                for node in &nodes {
                    all.merge(node);
                }
            }
            prop_assert_eq!(all.value().unwrap_or_default(), sum);
        }

        #[test]
        fn sets_that_have_met_are_equal(
            steps in prop::collection::vec((0..3_usize, 0..3_usize, 0..4_u8, any::<bool>()), 0..30),
        ) {
            let mut nodes: [Set; 3] = Default::default();
            for (node, met, item, inserts) in steps {
                let item = item.to_string();
                if inserts {
                    nodes[node].insert(u8::try_from(node).unwrap(), &item);
                } else {
                    nodes[node].remove(&item);
                }
                let other = nodes[met].clone();
                nodes[node].merge(&other);
            }
            let merged = |order: [usize; 3]| {
                let mut all = Set::default();
                for node in order {
                    all.merge(&nodes[node]);
                }
                all
            };
            prop_assert_eq!(merged([0, 1, 2]), merged([2, 1, 0]));
            prop_assert_eq!(merged([0, 1, 2]), merged([1, 0, 2]));
        }
    }
}
