//! Serves the answer, or runs its experiments: `--help` lists the words.

fn main() -> std::process::ExitCode {
    lab::run(sql_vs_nosql::answer())
}
