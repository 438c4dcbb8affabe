//! Does `conform` do what it says, with programs that are really started, killed and left alone? This executable is all
//! of it: the tests, `conform` for a suite of three cases, and the program of a reader that is tried.

mod conform_process;
mod program;
mod restarts;
mod signals;
mod suite;
mod words;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("conform") => suite::conform(),
        Some("program") => program::serve(&words[1..]),
        _ => {
            let tests = [restarts::tests(), signals::tests(), words::tests()];
            let arguments = Arguments::from_args();
            libtest_mimic::run(&arguments, tests.into_iter().flatten().collect()).exit_code()
        }
    }
}

/// The tests of a file: each function is one, named after it.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub fn tests() -> Vec<$crate::Trial> {
            vec![$($crate::Trial::test(stringify!($name), || {
                $name().map_err(|error| format!("{error:#}").into())
            })),*]
        }
    };
}
pub(crate) use tests;
