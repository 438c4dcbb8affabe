//! Serves the answer, or runs its experiments: `--help` lists the commands.

fn main() -> std::process::ExitCode {
    lab::run(health_check::answer())
}
