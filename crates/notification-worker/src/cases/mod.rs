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

/// What the program has to be, and to be told.
const NEEDS: &str = "\
    The program that is tried asks for no key, sends its stream over a WebSocket, sets no limit of notifications \
    a minute, and may or may not have a provider of pushes: the cases add no device that one could reach. Its \
    retries may take as long as they like, since nothing here is retried.";

/// Every case.
pub fn suite() -> Suite {
    Suite { needs: NEEDS, cases: [jobs::cases(), streams::cases(), bad_input::cases()].concat() }
}
