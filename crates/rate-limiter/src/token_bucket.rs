//! Token bucket: how many tokens are in the bucket?
//!
//! **Remembers** how many tokens are *missing* and when that was so: 16 bytes. Missing rather than present, so that
//! a client that was never seen has a full bucket and needs no state. Counted in parts of a token, `window` of them
//! to one, of which `limit` flow in each microsecond: all whole numbers, nothing is ever rounded.
//!
//! **Bound**: in any span of length `d` at most `limit × (1 + d / window)` pass: a full bucket at once, and what flows
//! in. Over a whole window that is twice the limit.

use crate::{
    algorithm::Counter,
    quota::{Micros, Quota},
};

/// The bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenBucket {
    missing: u64,
    at: Micros,
}

// ANCHOR: token_bucket
impl Counter for TokenBucket {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        let passed = now.saturating_sub(self.at);
        self.missing = self.missing.saturating_sub(passed.saturating_mul(quota.limit()));
        self.at = self.at.max(now);
    }

    fn remaining(&self, quota: &Quota, _: Micros) -> u64 {
        (quota.limit() * quota.window() - self.missing) / quota.window()
    }

    fn take(&mut self, quota: &Quota, _: Micros, cost: u64) {
        let empty = quota.limit() * quota.window();
        self.missing = (self.missing + cost * quota.window()).min(empty);
    }

    fn wait(&self, quota: &Quota, _: Micros, cost: u64) -> Micros {
        let enough = (quota.limit() - cost) * quota.window();
        self.missing.saturating_sub(enough).div_ceil(quota.limit())
    }

    fn whole(&self, quota: &Quota, _: Micros) -> Micros {
        self.missing.div_ceil(quota.limit())
    }
}
// ANCHOR_END: token_bucket
