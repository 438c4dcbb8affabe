//! Does a program do what an answer's table of calls says, whoever wrote it, in whichever language? A suite for
//! each answer sends what a client would, and looks at what comes.
//!
//! In reading order: a [`case`] is one line of a table, a [`target`] is the program that is tried, [`http`] holds
//! what every answer promises, [`run`] tries a suite and counts, [`program`] kills and starts the
//! reader's, [`words`] is the command line; then a module for each answer. `tests/` runs the same cases against
//! our own.

pub mod case;
pub mod target;
pub mod http;
pub mod run;
pub mod program;
pub mod words;
pub mod url_shortener;
pub mod cache_aside;
pub mod rate_limiter;
pub mod transaction_demo;
pub mod jwt_auth;
pub mod notification_worker;
pub mod saga_orchestrator;

use case::Case;

/// The answers that have a suite, and their cases.
pub fn suites() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("url-shortener", url_shortener::suite()),
        ("cache-aside", cache_aside::suite()),
        ("rate-limiter", rate_limiter::suite()),
        ("transaction-demo", transaction_demo::suite()),
        ("jwt-auth", jwt_auth::suite()),
        ("notification-worker", notification_worker::suite()),
        ("saga-orchestrator", saga_orchestrator::suite()),
    ]
}
