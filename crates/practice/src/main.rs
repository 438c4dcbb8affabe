//! `cargo practice …`: the same words as `cargo run -- practice …`, also while an answer does not compile.

use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = practice::words::command().get_matches();
    match practice::words::run(&matches) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
