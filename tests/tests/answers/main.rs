//! Do the parts that belong to no single answer work, seen from outside? These tests cover the stack, the command line
//! and the guide, on real servers, in parallel. Each answer's tests are in its own folder.

mod command_line;
mod edge;
mod examples;
mod guide_builds;
mod guide_in_a_browser;
mod guide_over_http;
mod guide_processes;
mod lab_parts;
mod readers_data;
mod stack;
mod support;
mod workspace;

use std::process::ExitCode;

use guide::{program::Programs, reader::Reader};
use lab::harness::cores;

/// Set for a process that has to be the guide, as `cargo run` starts it, and not a test.
const AS_GUIDE: &str = "TESTS_AS_GUIDE";

fn main() -> ExitCode {
    let answers = guide::answers();
    if let Some(code) = lab::take_over(&answers) {
        return code;
    }
    if std::env::var_os(AS_GUIDE).is_some() {
        return lab::cli::block_on(async {
            // A reader of its own, so that a test touches nobody's progress.
            let folder = tempfile::tempdir()?;
            let reader = Reader::of(folder.path());
            guide::serving::serve(0, Programs::This, reader, |_| {}).await?;
            Ok(ExitCode::SUCCESS)
        });
    }
    let tests = [
        command_line::tests(),
        edge::tests(),
        examples::tests(),
        guide_builds::tests(),
        guide_in_a_browser::tests(),
        guide_over_http::tests(),
        guide_processes::tests(),
        lab_parts::tests(),
        readers_data::tests(),
        stack::tests(),
        workspace::tests(),
    ];
    lab::harness::run_trials(tests.into_iter().flatten().collect(), cores())
}
