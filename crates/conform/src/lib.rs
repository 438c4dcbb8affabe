//! Does a program do what an answer's table of calls says, whoever wrote it, in whichever language? A suite for
//! each answer sends what a client would, and looks at what comes.
//!
//! In reading order: a [`case`] is one line of a table, a [`target`] is the program that is tried, [`http`] holds
//! what every answer promises, [`run`] tries a suite and counts, [`program`] kills and starts the
//! reader's, [`killing`] does so while it is asked, [`words`] is the command line; then a module for each answer. `tests/` runs the same cases against
//! our own.

pub mod case;
pub mod target;
pub mod http;
pub mod run;
pub mod program;
pub mod killing;
pub mod words;
pub mod url_shortener;
pub mod cache_aside;
pub mod rate_limiter;
pub mod transaction_demo;
pub mod jwt_auth;
pub mod notification_worker;
pub mod saga_orchestrator;

use case::{Case, Suite};

/// The suite of each answer, in the order of the book.
pub fn suites() -> Vec<Suite> {
    let suite = |answer, needs, cases: fn() -> Vec<Case>| Suite { answer, needs, cases: cases() };
    vec![
        suite("url-shortener", url_shortener::NEEDS, url_shortener::suite),
        suite("cache-aside", cache_aside::NEEDS, cache_aside::suite),
        suite("rate-limiter", rate_limiter::NEEDS, rate_limiter::suite),
        suite("transaction-demo", transaction_demo::NEEDS, transaction_demo::suite),
        suite("jwt-auth", jwt_auth::NEEDS, jwt_auth::suite),
        suite("notification-worker", notification_worker::NEEDS, notification_worker::suite),
        suite("saga-orchestrator", saga_orchestrator::NEEDS, saga_orchestrator::suite),
    ]
}
