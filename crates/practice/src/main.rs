//! `cargo practice …`. A separate program, so that it works while an answer does not compile, and builds quickly.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let matches = practice::words::command().get_matches();
    // Cargo says where the workspace is. Without cargo, use the workspace in which this program was built.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let workspace = manifest.as_deref().and_then(Path::parent).and_then(Path::parent);
    let workspace = workspace.map_or_else(practice::workspace, Path::to_owned);
    match practice::words::run(&matches, workspace) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
