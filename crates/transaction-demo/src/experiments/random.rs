//! Who pays whom, and when does who die?

use crate::cases::client::Payment;

/// Random enough to choose accounts and moments with, and another one in each run.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins anywhere.
    pub fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self(RandomState::new().hash_one(()))
    }

    /// A number below `end`. `SplitMix64`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    /// Two different ones of these, and an amount.
    pub fn payment(&mut self, key: String, accounts: &[i64]) -> Payment {
        let count = accounts.len() as u64;
        let from = self.below(count);
        let to = (from + 1 + self.below(count - 1)) % count;
        let account = |at: u64| accounts[usize::try_from(at).unwrap_or(0)];
        let cents = 1 + i64::try_from(self.below(100)).unwrap_or(0);
        Payment { key, from: account(from), to: account(to), cents }
    }
}
