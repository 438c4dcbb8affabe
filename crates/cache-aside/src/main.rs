//! Serves the answer, or runs its experiments: `--help` lists the commands.

fn main() -> std::process::ExitCode {
    lab::run(cache_aside::answer())
}
