//! How could a sequence give codes that nobody can guess in order? By a keyed permutation of [0, 62⁷).
//!
//! The service does not use it. Random codes need no key that must never change and no counter that all creates share,
//! and the primary key finds their rare collisions.

use sha2::{Digest, Sha256};

use crate::code::CODES;

/// 62⁷ < 2⁴², so the network works on two halves of 21 bits.
const HALF: u32 = 21;
const MASK: u64 = (1 << HALF) - 1;
/// Luby and Rackoff: four rounds are as good as a random permutation, if the round function is as good
/// as a random function.
const ROUNDS: u8 = 4;

/// A bijection of [0, 62⁷) that only the owner of the key can follow.
#[derive(Clone, Debug)]
pub struct Permutation {
    key: [u8; 16],
}

// ANCHOR: permutation
impl Permutation {
    /// The permutation of this key. Another key gives other codes, which may collide with the old ones:
    /// a key is for life.
    pub fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    // ANCHOR: cycle_walk
    /// The place of `number`, which must be below 62⁷.
    ///
    /// The network permutes [0, 2⁴²), a fifth of which is too large. *Cycle walking* (Black and Rogaway,
    /// 2002) applies it again until the result fits. It ends, because the cycle leads back to `number`,
    /// and two numbers never meet, because each step can be undone.
    pub fn apply(&self, number: u64) -> u64 {
        debug_assert!(number < CODES, "{number} is outside of the domain");
        let mut place = self.network(number);
        while place >= CODES {
            place = self.network(place);
        }
        place
    }

    /// A Feistel network: a bijection, whatever the round function is.
    fn network(&self, number: u64) -> u64 {
        let (mut left, mut right) = (number >> HALF, number & MASK);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        left << HALF | right
    }
    // ANCHOR_END: cycle_walk

    fn round(&self, round: u8, half: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update([round]);
        hash.update(half.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        digest[..8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte)) & MASK
    }
}
// ANCHOR_END: permutation

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Undoes one network: the rounds backwards.
    fn undo(permutation: &Permutation, number: u64) -> u64 {
        let (mut left, mut right) = (number >> HALF, number & MASK);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ permutation.round(round, left), left);
        }
        left << HALF | right
    }

    proptest! {
        #[test]
        fn every_place_leads_back_to_its_number(key: [u8; 16], number in 0..CODES) {
            let permutation = Permutation::new(key);
            let place = permutation.apply(number);
            prop_assert!(place < CODES);
            let mut back = undo(&permutation, place);
            while back >= CODES {
                back = undo(&permutation, back);
            }
            prop_assert_eq!(back, number);
        }

        #[test]
        fn another_key_is_another_permutation(one: [u8; 16], two: [u8; 16]) {
            prop_assume!(one != two);
            let same = (0..20).filter(|&n| {
                Permutation::new(one).apply(n) == Permutation::new(two).apply(n)
            });
            prop_assert!(same.count() < 2);
        }
    }

    #[test]
    fn neighbours_end_up_far_apart_and_never_in_one_place() {
        let permutation = Permutation::new([7; 16]);
        let places: Vec<_> = (0..20_000).map(|number| permutation.apply(number)).collect();
        assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len());
        let near =
            places.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < CODES / 1_000).count();
        // By chance one pair in 500 is that near.
        assert!(near < 100, "{near} neighbours stayed near");
    }
}
