//! Does what belongs to no single answer hold, seen from outside? The stack, the command line, the guide and the
//! workspace's own rules, on real servers, in parallel. Each answer's tests are in its own folder.

mod command_line;
mod edge;
mod guide_in_a_browser;
mod guide_over_http;
mod lab_parts;
mod readers_data;
mod stack;
mod support;
mod workspace;

use std::process::ExitCode;

use lab::harness::cores;

fn main() -> ExitCode {
    let answers = guide::answers();
    if let Some(code) = lab::take_over(&answers) {
        return code;
    }
    let tests = [
        command_line::tests(),
        edge::tests(),
        guide_in_a_browser::tests(),
        guide_over_http::tests(),
        lab_parts::tests(),
        readers_data::tests(),
        stack::tests(),
        workspace::tests(),
    ];
    lab::harness::run_trials(tests.into_iter().flatten().collect(), cores())
}
