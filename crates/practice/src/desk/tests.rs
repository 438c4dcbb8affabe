//! Is a reader's work safe, and does each command do what it says?

use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::{check::PATIENCE, workspace};

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

fn practice(folder: &TempDir) -> Desk {
    Desk::open(folder.path().to_owned()).unwrap()
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
    assert!(gapped.contains("pub fn sum(a: u8, b: u8) -> u8 {\n    todo!(\"add\")\n}"), "{gapped}");
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
        check::run(
            &practice.workspace,
            practice.current().unwrap(),
            PATIENCE,
            &Stop::default(),
            |_| {},
        )
        .unwrap()
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
    assert_eq!(practice(&folder).check(PATIENCE, &Stop::default()).unwrap(), Outcome::Holds);
    assert_eq!(state(&folder), State::Done);
}

#[test]
fn what_is_done_stays_done_and_does_not_stand_in_the_way_of_the_next() {
    let folder = checkout();
    let other = EXERCISE.replace("title: Add", "title: Add again");
    fs::write(folder.path().join("crates/sums/exercises/more.md"), other).unwrap();
    practice(&folder).start("sums/add").unwrap();
    assert!(practice(&folder).start("sums/more").unwrap_err().to_string().contains("you are at"));
    let mine = CODE.replace("a + b", "b + a");
    fs::write(code(&folder), &mine).unwrap();
    assert_eq!(practice(&folder).check(PATIENCE, &Stop::default()).unwrap(), Outcome::Holds);
    // The next exercise cannot start while the solution is uncommitted. After a commit it can.
    assert!(practice(&folder).start("sums/more").unwrap_err().to_string().contains("git stash"));
    assert_eq!(fs::read_to_string(code(&folder)).unwrap(), mine);
    commit(&folder);
    practice(&folder).start("sums/more").unwrap();
    practice(&folder).reset().unwrap();
    assert_eq!(fs::read_to_string(code(&folder)).unwrap(), mine);
    practice(&folder).start("sums/add").unwrap();
    practice(&folder).reset().unwrap();
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
    let practice = Desk::open(workspace()).unwrap();
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

#[test]
fn a_start_that_was_killed_before_it_cut_the_gap_is_finished_by_the_next() {
    let folder = checkout();
    practice(&folder).start("sums/add").unwrap();
    // The state after a kill in between: the progress is written, and the code is not.
    let mut killed = practice(&folder);
    killed.progress.exercises.get_mut("sums/add").unwrap().cut = false;
    killed.progress.store(&killed.workspace).unwrap();
    fs::write(code(&folder), CODE).unwrap();

    let refused = practice(&folder).check(PATIENCE, &Stop::default()).unwrap_err().to_string();
    assert!(refused.contains("not cut yet"), "{refused}");
    practice(&folder).start("sums/add").unwrap();
    assert!(fs::read_to_string(code(&folder)).unwrap().contains("todo!(\"add\")"));
    practice(&folder).reset().unwrap();
    assert_eq!(fs::read_to_string(code(&folder)).unwrap(), CODE);
}

#[test]
fn nothing_is_cut_that_cannot_be_remembered() {
    let folder = checkout();
    // A folder in place of the file to which the progress is written first.
    fs::create_dir_all(folder.path().join(".practice/progress.new")).unwrap();
    practice(&folder).start("sums/add").unwrap_err();
    assert_eq!(fs::read_to_string(code(&folder)).unwrap(), CODE);
}
