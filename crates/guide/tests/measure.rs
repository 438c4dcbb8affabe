//! Does `measure` keep what it should? The real program, on real servers.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Output, Stdio},
    time::SystemTime,
};

use serde_json::Value;

fn measure(into: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guide"));
    command.arg("measure").args(words).arg("--into").arg(into).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn recorded(into: &Path) -> Value {
    let file = fs::read(into.join("jwt-auth.json")).expect("measure wrote it");
    serde_json::from_slice(&file).expect("it is JSON")
}

/// One quick experiment, with more options.
fn forgeries<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["jwt-auth", "--experiment", "forgeries"], words].concat()
}

#[test]
fn several_runs_are_recorded_and_what_is_worse_replaces_them_only_if_forced() {
    let into = tempfile::tempdir().unwrap();
    let first = measure(into.path(), &forgeries(&["--runs", "3"])).output().unwrap();
    assert!(first.status.success(), "{}", said(&first));
    let before = recorded(into.path());
    let report = &before["reports"][0];
    assert_eq!((&report["runs"], &report["experiment"]), (&3.into(), &"forgeries".into()));
    assert!(report["commit"].is_string() && report["machine"]["cores"].is_u64(), "{report}");
    let spread = &report["figures"][0]["spread"];
    assert!(spread["least"].is_f64() && spread["most"].is_f64(), "{report}");

    let fewer = measure(into.path(), &forgeries(&["--runs", "1"])).output().unwrap();
    let words = said(&fewer);
    assert!(words.contains("not recorded") && words.contains("--force"), "{words}");
    assert_eq!(recorded(into.path()), before);

    let forced = measure(into.path(), &forgeries(&["--runs", "1", "--force"])).output().unwrap();
    assert!(!said(&forced).contains("not recorded"), "{}", said(&forced));
    assert_eq!(recorded(into.path())["reports"][0]["runs"], 1);
}

#[test]
fn a_program_that_is_older_than_the_code_measures_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (old, into) = (folder.path().join("guide"), folder.path().join("into"));
    fs::copy(env!("CARGO_BIN_EXE_guide"), &old).unwrap();
    File::options().append(true).open(&old).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let mut command = Command::new(old);
    command.arg("measure").args(forgeries(&["--runs", "1"])).arg("--into").arg(&into);
    let refused = command.stdin(Stdio::null()).output().unwrap();
    let words = said(&refused);
    assert!(!refused.status.success() && !into.exists(), "{words}");
    for needed in ["jwt-auth", "changed after this program was built", "cargo run -- measure"] {
        assert!(words.contains(needed), "no {needed:?} in: {words}");
    }
}

#[test]
fn ctrl_c_keeps_what_was_measured_before() {
    let into = tempfile::tempdir().unwrap();
    // One that is quick, and one that takes much longer than Ctrl-C does.
    let words = forgeries(&["--experiment", "verify", "--runs", "1"]);
    let mut command = measure(into.path(), &words);
    let mut measuring = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(measuring.stdout.take().unwrap()).lines();
    let first = out.next().unwrap().unwrap();
    assert!(first.starts_with("jwt-auth forgeries: Held"), "{first}");
    let stopped = Command::new("kill").args(["-INT", &measuring.id().to_string()]).status();
    assert!(stopped.unwrap().success());
    let mut said = String::new();
    measuring.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!measuring.wait().unwrap().success(), "{said}");
    assert!(said.contains("stopped; 1 experiments"), "{said}");
    let reports = recorded(into.path())["reports"].clone();
    assert_eq!(reports.as_array().unwrap().len(), 1, "{reports}");
    assert_eq!(reports[0]["experiment"], "forgeries");
}
