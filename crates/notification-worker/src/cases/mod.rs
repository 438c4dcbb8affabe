//! The notification system's table of calls, and its streams.

mod bad_input;
pub mod client;
mod jobs;
pub mod stream;
mod streams;

use std::time::Duration;

use conform::case::Suite;

/// How long to wait for anything that should come soon. A machine that is busy with other tests is slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Every case.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [jobs::cases(), streams::cases(), bad_input::cases()].concat(),
    }
}
