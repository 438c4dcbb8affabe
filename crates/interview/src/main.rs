//! `cargo run -p interview -- …`: the same commands as the guide's, in a program that is built in seconds.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Command;

fn main() -> ExitCode {
    let command = Command::new("interview").subcommand_required(true);
    let matches = command.subcommands(interview::words::commands()).get_matches();
    // Cargo says where the workspace is. Without cargo, use the workspace in which this program was built.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let workspace = manifest.as_deref().and_then(Path::parent).and_then(Path::parent);
    let workspace = workspace.map_or_else(interview::workspace, Path::to_owned);
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::FAILURE };
    match interview::words::run(name, matches, &workspace) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
