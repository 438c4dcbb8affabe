//! The URL shortener's table of calls, `calls.md`, as cases.

mod bad_input;
pub mod client;
mod clicks;
mod crowds;
mod ends;
mod links;
mod owners;

use conform::case::Suite;

/// All of them, in the order of the table.
pub fn suite() -> Suite {
    let cases = [
        links::cases(),
        owners::cases(),
        ends::cases(),
        clicks::cases(),
        crowds::cases(),
        bad_input::cases(),
    ];
    Suite { calls: include_str!("calls.md"), cases: cases.concat() }
}
