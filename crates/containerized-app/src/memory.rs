//! How does a process stay below its limit of memory? Above it, the kernel kills the process, with all that it holds. So
//! work that needs memory takes its share of a budget first, and is refused when there is none left.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

const MIB: u64 = 1 << 20;
/// How much of the limit may be used. The rest is for what the budget does not see: buffers, stacks, fragments.
const SHARE: f64 = 0.8;
/// What we hold at most where the kernel sets no limit, in MiB.
pub const MOST: u32 = 1_024;

/// The memory that work may take.
#[derive(Debug)]
pub struct Budget {
    /// One permit for each MiB.
    free: Arc<Semaphore>,
    held: Arc<AtomicU32>,
}

/// A share of the budget, given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    _bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
    mib: u32,
    /// Of all together.
    sum: Arc<AtomicU32>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.mib, Ordering::Relaxed);
    }
}

impl Budget {
    /// What is left of the limit beside what the process uses already, both in bytes.
    pub fn new(limit: Option<u64>, used: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
        let usable = limit.map(|limit| (limit as f64 * SHARE) as u64);
        let mib = usable.map_or(u64::from(MOST), |usable| usable.saturating_sub(used) / MIB);
        let mib = usize::try_from(mib.min(u64::from(MOST))).unwrap_or_default();
        Self { free: Arc::new(Semaphore::new(mib)), held: Arc::default() }
    }

    // ANCHOR: take
    /// Takes this much, or refuses at once. Waiting would only move the queue into our own memory.
    pub fn take(&self, mib: u32) -> Result<Held, Error> {
        let share = Arc::clone(&self.free).try_acquire_many_owned(mib).map_err(|_| Error::Full)?;
        self.held.fetch_add(mib, Ordering::Relaxed);
        // The kernel gives a page only when it is written.
        let bytes = vec![1; (mib as usize) << 20];
        Ok(Held { _bytes: bytes, _share: share, mib, sum: Arc::clone(&self.held) })
    }
    // ANCHOR_END: take

    /// How much is taken, in MiB.
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }
}

/// How much memory this process uses, in bytes. Zero where the system does not say.
pub fn used() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = kibibytes.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_below_the_limit_is_refused_and_what_is_given_back_can_be_taken() {
        let budget = Budget::new(Some(20 * MIB), 6 * MIB);
        let first = budget.take(8).unwrap();
        assert!(matches!(budget.take(3), Err(Error::Full)), "8 and 3 are more than 16 less 6");
        let second = budget.take(2).unwrap();
        assert_eq!(budget.held(), 10);
        drop(first);
        assert_eq!(budget.held(), 2);
        budget.take(8).unwrap();
        drop(second);
    }

    #[test]
    fn a_process_that_is_above_its_share_already_takes_nothing() {
        assert!(Budget::new(Some(MIB), 2 * MIB).take(1).is_err());
    }
}
