//! Which claims does this answer make, and what could refute each?

pub mod compare;
pub mod early_refresh;
pub mod eviction;
pub mod fixture;
pub mod jitter;
pub mod latency;
pub mod missing_keys;
pub mod redis_away;
pub mod stale_race;
pub mod stampede;
mod write_policies;
mod witnesses;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        latency::experiment(),
        stampede::experiment(),
        stale_race::experiment(),
        early_refresh::experiment(),
        jitter::experiment(),
        missing_keys::experiment(),
        redis_away::experiment(),
        write_policies::experiment(),
        eviction::experiment(),
    ]
}
