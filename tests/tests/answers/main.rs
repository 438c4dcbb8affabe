//! Does the whole thing hold, seen from outside? Every answer over HTTP, every experiment, the stack, the
//! command line and the guide, all on real servers, in parallel.

mod cache_aside;
mod command_line;
mod conformance;
mod experiments;
mod groups;
mod guide_in_a_browser;
mod guide_over_http;
mod http;
mod jwt_auth;
mod lab_parts;
mod notification_worker;
mod rate_limiter;
mod saga_orchestrator;
mod stack;
mod support;
mod transaction_demo;
mod url_shortener;
mod workspace;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let answers = guide::answers();
    if let Some(code) = lab::take_over(&answers) {
        return code;
    }
    if let Some(code) = groups::take_over() {
        return code;
    }
    let tests = [
        cache_aside::tests(),
        command_line::tests(),
        conformance::tests(&answers),
        experiments::tests(&answers),
        groups::tests(),
        guide_in_a_browser::tests(),
        guide_over_http::tests(),
        jwt_auth::tests(),
        lab_parts::tests(),
        notification_worker::tests(),
        rate_limiter::tests(),
        saga_orchestrator::tests(),
        stack::tests(),
        transaction_demo::tests(),
        url_shortener::tests(),
        workspace::tests(),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests.into_iter().flatten().collect()).exit_code()
}
