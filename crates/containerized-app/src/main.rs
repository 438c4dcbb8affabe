//! Serves the answer, or runs its experiments: `--help` lists the words.

fn main() -> std::process::ExitCode {
    lab::run(containerized_app::answer())
}
