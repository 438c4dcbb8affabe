//! When does a key begin to sign, and when is it forgotten?

use std::time::Duration;

/// When keys change.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// How long a key signs.
    pub key_life: Duration,
    /// How long verifiers may use a key set before they ask again.
    pub key_set_max_age: Duration,
    /// How long a token lives.
    pub token_life: Duration,
    /// By how much clocks may differ.
    pub leeway: Duration,
}

impl Schedule {
    // ANCHOR: schedule
    /// How long a key is published before it signs: another process of ours reads it within one age of the set, a
    /// verifier fetches it within one more, and one is to spare for a fetch that fails.
    pub fn publish_ahead(&self) -> Duration {
        self.key_set_max_age * 3
    }

    /// How long a key stays published after its successor has begun to sign: until its last token has ended, and a
    /// second, since tokens count in whole ones.
    pub fn publish_after(&self) -> Duration {
        self.token_life + self.leeway + Duration::from_secs(1)
    }
    // ANCHOR_END: schedule
}
