//! What can a reader say? `practice`, `start`, `check`, `hint`, `solution`, `reset`.
//!
//! Invariant: nothing that the reader wrote is ever overwritten. A file is written only while it is as git or
//! as we left it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches};
use similar::TextDiff;

use crate::{
    check::{self, Outcome},
    exercise::Exercise,
    gap,
    progress::{Attempt, Progress, State},
    proof, workspace,
};

/// How often `--watch` looks whether a file was saved.
const LOOK: Duration = Duration::from_millis(300);

/// `practice` and its words.
pub fn command() -> clap::Command {
    let which = |required| Arg::new("exercise").value_name("ANSWER/NAME").required(required);
    let watch = Arg::new("watch").long("watch").action(ArgAction::SetTrue);
    clap::Command::new("practice")
        .about("Exercises on the answers' real code; without a word, lists them")
        .subcommand(
            clap::Command::new("start").about("Cuts the gap into the code").arg(which(true)),
        )
        .subcommand(
            clap::Command::new("check")
                .about("Runs the checks on what you wrote")
                .arg(watch.help("Again each time a file is saved")),
        )
        .subcommand(clap::Command::new("hint").about("Shows the next hint"))
        .subcommand(clap::Command::new("solution").about("Shows how ours differs from yours"))
        .subcommand(clap::Command::new("reset").about("Puts the code back"))
        .subcommand(
            clap::Command::new("prove")
                .about("For authors: shows that each exercise's checks catch what they should")
                .arg(which(false)),
        )
}

/// Does what was said. The exit code is 1 if a check failed.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut practice = Practice::open(workspace())?;
    match matches.subcommand() {
        Some(("start", matches)) => {
            let key = matches.get_one::<String>("exercise").context("it is required")?;
            practice.start(key).map(|()| ExitCode::SUCCESS)
        }
        Some(("check", matches)) if matches.get_flag("watch") => practice.watch(),
        Some(("check", _)) => {
            let good = practice.check()?;
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some(("hint", _)) => practice.hint().map(|()| ExitCode::SUCCESS),
        Some(("solution", _)) => practice.solution().map(|()| ExitCode::SUCCESS),
        Some(("reset", _)) => practice.reset().map(|()| ExitCode::SUCCESS),
        Some(("prove", matches)) => {
            let key = matches.get_one::<String>("exercise").map_or("", String::as_str);
            proof::prove(&practice.workspace, &practice.exercises, key)
        }
        _ => {
            practice.list();
            Ok(ExitCode::SUCCESS)
        }
    }
}

struct Practice {
    workspace: PathBuf,
    exercises: Vec<Exercise>,
    progress: Progress,
}

impl Practice {
    fn open(workspace: PathBuf) -> anyhow::Result<Self> {
        let exercises = Exercise::all(&workspace)?;
        Ok(Self { progress: Progress::load(&workspace)?, workspace, exercises })
    }

    fn list(&self) {
        let mut answer = "";
        for exercise in &self.exercises {
            if answer != exercise.key.answer {
                answer = &exercise.key.answer;
                println!("{answer}");
            }
            let mark = match self.progress.state(&exercise.key) {
                State::Done => "✓",
                State::Started => "…",
                State::Open => " ",
            };
            let (name, level) = (&exercise.key.name, &exercise.front.level);
            println!("  {mark} {name:<24} {level:<12} {}", exercise.front.title);
        }
        println!("\nStart one: cargo run -- practice start ANSWER/NAME");
    }

    fn start(&mut self, key: &str) -> anyhow::Result<()> {
        let exercise = self.named(key)?.clone();
        if let Some(current) = self.progress.current.as_deref() {
            if current == key {
                self.show(&exercise);
                return Ok(());
            }
            bail!(
                "you are at {current}: finish it with `practice check`, or leave it with \
                 `practice reset`"
            );
        }
        let path = exercise.path();
        let original = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if !self.is_as_committed(&path)? {
            bail!(
                "{} has changes, and they may be yours. Keep them with `git commit -am 'my \
                 solution'`, or lay them aside with `git stash`; then start again",
                self.shown(&path)
            );
        }
        let gapped = gap::cut(&original, &exercise.front.gap, &exercise.front.todo)?;
        fs::write(&path, &gapped).with_context(|| path.display().to_string())?;
        let attempt = Attempt { original, gapped, ..Attempt::default() };
        self.progress.exercises.insert(key.to_owned(), attempt);
        self.progress.current = Some(key.to_owned());
        self.progress.store(&self.workspace)?;
        self.show(&exercise);
        Ok(())
    }

    fn show(&self, exercise: &Exercise) {
        let path = exercise.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().position(|line| line.contains("todo!(")).map_or(1, |at| at + 1);
        println!("{} ({})\n", exercise.front.title, exercise.front.level);
        println!("{}\n", exercise.text);
        println!("The gap: {}:{line}", self.shown(&path));
        println!("Then:    cargo run -- practice check    (--watch; or hint, solution, reset)");
    }

    /// Says what is still wrong, if anything is.
    fn check(&mut self) -> anyhow::Result<bool> {
        let exercise = self.current()?.clone();
        match check::run(&self.workspace, &exercise)? {
            Outcome::DoesNotCompile => Ok(false),
            Outcome::Fails { check, otherwise, seen } => {
                println!("Not yet: {otherwise}\n\n{check} says:\n{}", indented(&seen));
                Ok(false)
            }
            Outcome::Holds => {
                let key = exercise.key.to_string();
                if let Some(attempt) = self.progress.exercises.get_mut(&key) {
                    attempt.done = true;
                }
                self.progress.store(&self.workspace)?;
                println!(
                    "Done: every check of {key} holds.\n`practice solution` shows ours beside yours. \
                     `practice reset` leaves this exercise."
                );
                Ok(true)
            }
        }
    }

    fn watch(&mut self) -> anyhow::Result<ExitCode> {
        let folder = self.current()?.folder.join("src");
        loop {
            let seen = newest(&folder);
            if self.check()? {
                return Ok(ExitCode::SUCCESS);
            }
            println!("\nWaiting for a file to be saved …");
            while newest(&folder) == seen {
                thread::sleep(LOOK);
            }
        }
    }

    fn hint(&mut self) -> anyhow::Result<()> {
        let exercise = self.current()?.clone();
        let key = exercise.key.to_string();
        let attempt = self.progress.exercises.get_mut(&key).context("it was started")?;
        let hints = &exercise.front.hints;
        let Some(hint) = hints.get(attempt.hints) else {
            println!("That was the last hint. `practice solution` shows ours.");
            return Ok(());
        };
        attempt.hints += 1;
        println!("Hint {} of {}: {hint}", attempt.hints, hints.len());
        self.progress.store(&self.workspace)
    }

    fn solution(&self) -> anyhow::Result<()> {
        let exercise = self.current()?;
        let path = exercise.path();
        let attempt = self.progress.exercises.get(&exercise.key.to_string());
        let ours = &attempt.context("it was started")?.original;
        let yours = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if yours == *ours {
            println!("Yours is ours, letter by letter.");
            return Ok(());
        }
        let diff = TextDiff::from_lines(&yours, ours);
        print!("{}", diff.unified_diff().context_radius(3).header("yours", "ours"));
        Ok(())
    }

    /// Leaves the exercise. What was not filled in is filled with ours.
    fn reset(&mut self) -> anyhow::Result<()> {
        let exercise = self.current()?.clone();
        let key = exercise.key.to_string();
        let attempt = self.progress.exercises.get(&key).context("it was started")?.clone();
        let path = exercise.path();
        let now = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if now == attempt.gapped {
            fs::write(&path, &attempt.original).with_context(|| path.display().to_string())?;
        } else if now != attempt.original && !self.is_as_committed(&path)? {
            bail!(
                "{} has changes that are yours. Keep them with `git commit -am 'my solution'`, or lay \
                 them aside with `git stash`; then reset again",
                self.shown(&path)
            );
        }
        if !attempt.done {
            self.progress.exercises.remove(&key);
        }
        self.progress.current = None;
        self.progress.store(&self.workspace)?;
        println!("Left {key}.");
        Ok(())
    }

    fn named(&self, key: &str) -> anyhow::Result<&Exercise> {
        let found = self.exercises.iter().find(|exercise| exercise.key.to_string() == key);
        found.with_context(|| {
            let last = key.rsplit('/').next().unwrap_or_default();
            let like = self.exercises.iter().map(|exercise| exercise.key.to_string());
            let like: Vec<_> = like.filter(|known| known.contains(last)).collect();
            format!("there is no exercise {key}. Perhaps: {}", like.join(", "))
        })
    }

    fn current(&self) -> anyhow::Result<&Exercise> {
        let current = self.progress.current.as_deref();
        self.named(current.context("start an exercise first: `practice` lists them")?)
    }

    /// Whether nobody has changed the file since the last commit.
    fn is_as_committed(&self, path: &Path) -> anyhow::Result<bool> {
        let status = Command::new("git")
            .args(["diff", "--quiet", "HEAD", "--"])
            .arg(path)
            .current_dir(&self.workspace)
            .status()
            .context("git cannot be run, and only git knows which changes are yours")?;
        Ok(status.success())
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.workspace).unwrap_or(path).display().to_string()
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// When a file below this folder was last saved.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?;
    let times = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        if path.is_dir() { newest(&path) } else { entry.metadata().ok()?.modified().ok() }
    });
    times.max()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const CODE: &str = "// ANCHOR: sum\n/// The sum.\npub fn sum(a: u8, b: u8) -> u8 {\n    a + b\n}\n\
                        // ANCHOR_END: sum\n\n#[test]\nfn two_and_two() {\n    assert_eq!(sum(2, 2), 4);\n    \
                        assert_eq!(sum(2, 3), 5);\n}\n";
    const EXERCISE: &str = "---\ntitle: Add\nlevel: a minute\nfile: src/lib.rs\ngap: sum\ntodo: add\n\
                            checks:\n  - unit: two_and_two\n    otherwise: That is no sum.\n\
                            hints: [plus, a + b]\n---\n\nAdd two numbers.\n";

    /// A reader's checkout with one answer and one exercise.
    fn checkout() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let answer = folder.path().join("crates/sums");
        for (path, text) in [
            ("../../Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\nresolver = \"3\"\n"),
            ("../../.gitignore", "target\n.practice\n"),
            ("Cargo.toml", "[package]\nname = \"sums\"\nedition = \"2024\"\n"),
            ("src/lib.rs", CODE),
            ("exercises/add.md", EXERCISE),
        ] {
            let path = answer.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::create_dir_all(&answer).unwrap();
            fs::write(path, text).unwrap();
        }
        git(&folder, &["init", "--quiet"]);
        commit(&folder);
        folder
    }

    fn git(folder: &TempDir, words: &[&str]) {
        let name = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"];
        let status = Command::new("git").args(name).args(words).current_dir(folder).status();
        assert!(status.unwrap().success(), "git {words:?}");
    }

    fn commit(folder: &TempDir) {
        git(folder, &["add", "--all"]);
        git(folder, &["commit", "--quiet", "--message", "mine"]);
    }

    fn practice(folder: &TempDir) -> Practice {
        Practice::open(folder.path().to_owned()).unwrap()
    }

    fn code(folder: &TempDir) -> PathBuf {
        folder.path().join("crates/sums/src/lib.rs")
    }

    fn state(folder: &TempDir) -> State {
        let practice = practice(folder);
        practice.progress.state(&practice.exercises[0].key)
    }

    #[test]
    fn start_cuts_the_gap_and_reset_puts_the_code_back() {
        let folder = checkout();
        practice(&folder).start("sums/add").unwrap();
        let gapped = fs::read_to_string(code(&folder)).unwrap();
        assert!(
            gapped.contains("pub fn sum(a: u8, b: u8) -> u8 {\n    todo!(\"add\")\n}"),
            "{gapped}"
        );
        assert_eq!(state(&folder), State::Started);
        practice(&folder).reset().unwrap();
        assert_eq!(fs::read_to_string(code(&folder)).unwrap(), CODE);
        assert_eq!(state(&folder), State::Open);
    }

    #[test]
    fn what_the_reader_wrote_is_never_overwritten() {
        let folder = checkout();
        let mine = CODE.replace("a + b", "b + a");
        fs::write(code(&folder), &mine).unwrap();
        let refused = practice(&folder).start("sums/add").unwrap_err().to_string();
        assert!(refused.contains("git stash") && refused.contains("crates/sums/src/lib.rs"));
        assert_eq!(fs::read_to_string(code(&folder)).unwrap(), mine);

        git(&folder, &["stash", "--quiet"]);
        practice(&folder).start("sums/add").unwrap();
        fs::write(code(&folder), &mine).unwrap();
        assert!(practice(&folder).reset().unwrap_err().to_string().contains("git stash"));
        assert_eq!(fs::read_to_string(code(&folder)).unwrap(), mine);
        // A second start shows the exercise again and touches nothing.
        practice(&folder).start("sums/add").unwrap();
        assert_eq!(fs::read_to_string(code(&folder)).unwrap(), mine);

        commit(&folder);
        practice(&folder).reset().unwrap();
        assert_eq!(fs::read_to_string(code(&folder)).unwrap(), mine);
    }

    #[test]
    fn a_check_says_what_is_wrong_until_it_holds() {
        let folder = checkout();
        practice(&folder).start("sums/add").unwrap();
        let attempt = |body: &str| {
            let gapped = fs::read_to_string(code(&folder)).unwrap();
            fs::write(code(&folder), gap::fill(&gapped, "sum", body).unwrap()).unwrap();
            let practice = practice(&folder);
            check::run(&practice.workspace, practice.current().unwrap()).unwrap()
        };
        assert_eq!(attempt("pub fn sum(a: u8, b: u8) -> u8 { a + }\n"), Outcome::DoesNotCompile);
        let Outcome::Fails { check, otherwise, seen } =
            attempt("pub fn sum(a: u8, b: u8) -> u8 { a * b }\n")
        else {
            panic!("2 · 3 is not 5");
        };
        assert_eq!((&*check, &*otherwise), ("two_and_two", "That is no sum."));
        assert!(seen.contains("right: 5"), "{seen}");
        assert_eq!(attempt("pub fn sum(a: u8, b: u8) -> u8 { b + a }\n"), Outcome::Holds);
        assert!(practice(&folder).check().unwrap());
        assert_eq!(state(&folder), State::Done);
    }

    #[test]
    fn hints_come_one_by_one_and_are_remembered() {
        let folder = checkout();
        assert!(practice(&folder).hint().unwrap_err().to_string().contains("start an exercise"));
        practice(&folder).start("sums/add").unwrap();
        for shown in [1, 2, 2] {
            practice(&folder).hint().unwrap();
            assert_eq!(practice(&folder).progress.exercises["sums/add"].hints, shown);
        }
    }

    #[test]
    fn an_exercise_that_does_not_exist_is_an_error_that_names_those_like_it() {
        let error = practice(&checkout()).start("other/add").unwrap_err().to_string();
        assert!(error.contains("sums/add"), "{error}");
    }

    /// The quick part of the proof; `practice prove` does the rest.
    #[test]
    fn every_exercise_of_this_workspace_can_be_started_and_has_a_wrong_solution() {
        let practice = Practice::open(workspace()).unwrap();
        for exercise in &practice.exercises {
            let prove = || {
                let code = fs::read_to_string(exercise.path())?;
                let front = &exercise.front;
                gap::cut(&code, &front.gap, &front.todo)?;
                let (wrong, caught_by) = exercise.wrong()?;
                syn::parse_file(&gap::fill(&code, &front.gap, &wrong)?)?;
                let named = front.checks.iter().any(|check| check.name() == caught_by);
                anyhow::ensure!(named, "there is no check {caught_by}");
                anyhow::Ok(())
            };
            prove().unwrap_or_else(|error| panic!("{}: {error:#}", exercise.key));
        }
    }
}
