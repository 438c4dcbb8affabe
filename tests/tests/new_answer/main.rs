//! Is it true that an answer is a folder, one line of the guide's list and one row of the README? This test adds one to
//! a copy of the workspace and uses it. Its folder is `health-check`, the smallest answer there is.

#![allow(clippy::unwrap_used, reason = "helpers of a test, which fails and says where")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

#[test]
#[ignore = "it compiles every crate of the workspace once more; .ci/run asks for it"]
fn an_answer_is_a_folder_a_line_of_the_guides_list_and_a_row_of_the_readme() {
    let copy = copy_with_one_answer_more();

    let list: Value = serde_json::from_str(&cargo(&copy, "run -- list --json")).unwrap();
    let listed = list.as_array().unwrap().iter().find(|answer| answer["name"] == "health-check");
    assert_eq!(listed.unwrap()["experiments"][0]["name"], "restart", "{list}");

    let site = copy.join("target/site");
    cargo(&copy, &format!("run -- build {}", site.display()));
    let chapter = fs::read_to_string(site.join("health-check.html")).unwrap();
    assert!(chapter.contains("cargo run -- health-check experiment restart"), "{chapter}");
    assert!(chapter.contains("<svg"), "the diagram is not drawn: {chapter}");
    for page in ["index.html", "measured.html"] {
        let text = fs::read_to_string(site.join(page)).unwrap();
        assert!(text.contains("health-check.html"), "{page} does not lead to the chapter");
    }

    let report = cargo(&copy, "run -- health-check experiment restart --json");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(
        report["checks"].as_array().unwrap().iter().all(|check| check["held"] == true),
        "{report}"
    );

    // With the guide among the packages, so that dependencies have the same features and are not compiled again.
    let tried = cargo(&copy, "test -p health-check -p guide --test answer");
    for test in [
        "experiment::restart",
        "case::the_service_says_that_it_lives_and_is_ready",
        "answer::the_answer_says_ok",
        "whiteboard::exactly_the_cases_in_the_table_fail",
        "whiteboard::restart_fails",
    ] {
        let passed = tried.lines().any(|line| line.contains(test) && line.ends_with("... ok"));
        assert!(passed, "{test} did not run:\n{tried}");
    }
    cargo(&copy, "test -p tests --test rules");
}

fn copy_with_one_answer_more() -> PathBuf {
    let copy = practice::proof::copy(&practice::workspace(), "new-answer").unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/new_answer/health-check");
    copy_folder(&folder, &copy.join("crates/health-check"));
    let line = "health-check = { path = \"../health-check\" }\n";
    insert(&copy.join("crates/guide/Cargo.toml"), "[dependencies]\n", line);
    let row =
        "| What does a health check say? | [`health-check`](crates/health-check) | | `restart` |\n";
    insert(&copy.join("README.md"), "|---|---|---|---|\n", row);
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(path, to).unwrap();
        }
    }
}

/// Adds a line to a file, after another.
fn insert(file: &Path, after: &str, line: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(after), "{} has no {after}", file.display());
    fs::write(file, text.replacen(after, &format!("{after}{line}"), 1)).unwrap();
}

/// Runs cargo in the copy and returns what it printed.
fn cargo(copy: &Path, words: &str) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(words.split(' ')).current_dir(copy).env("CARGO_NET_OFFLINE", "true");
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {words}: {printed}{said}");
    printed
}
