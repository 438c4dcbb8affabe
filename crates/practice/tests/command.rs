//! Does `cargo practice` do its work wherever the code comes from, and whatever the reader writes?

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

mod checkout;

use std::{fs, process::Command, time::Instant};

use checkout::{Checkout, said};

/// Whether a process still does anything. One that has ended may be listed until its parent has noticed.
fn lives(pid: &str) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", pid]).output().unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

#[test]
fn a_test_that_never_ends_is_killed_with_all_that_it_started() {
    let checkout = Checkout::of_git();
    checkout.says(&["start", "sums/add"]);
    let folder = checkout.0.path().display();
    checkout.fill(&format!(
        "    let child = std::process::Command::new(\"sleep\").arg(\"1000\").spawn().unwrap();\n    \
         let pids = format!(\"{{}} {{}}\", std::process::id(), child.id());\n    \
         std::fs::write(\"{folder}/pids\", pids).unwrap();\n    let _ = (a, b);\n    loop {{}}"
    ));
    let begun = Instant::now();
    let words = checkout.refuses(&["check", "--patience", "1"]);
    assert!(words.contains("did not end within 1 s"), "{words}");
    assert!(begun.elapsed().as_secs() < 60, "it was waited for");
    let pids = fs::read_to_string(checkout.path("pids")).unwrap();
    for pid in pids.split(' ') {
        assert!(!lives(pid), "process {pid} goes on");
    }
}

#[test]
fn the_time_that_a_build_takes_is_not_counted() {
    let checkout = Checkout::of_git();
    let slow = "fn main() { std::thread::sleep(std::time::Duration::from_secs(2)); }\n";
    fs::write(checkout.path("crates/sums/build.rs"), slow).unwrap();
    checkout.says(&["start", "sums/add"]);
    checkout.fill("    b + a");
    checkout.says(&["check", "--patience", "1"]);
}

#[test]
fn the_time_that_servers_take_to_start_is_not_counted() {
    let checkout = Checkout::of_git();
    checkout.says(&["start", "sums/add"]);
    checkout.fill("    b + a");
    fs::write(checkout.path("slow-servers"), "").unwrap();
    checkout.says(&["check", "--patience", "1"]);
}

#[test]
fn a_check_says_what_it_runs_and_a_warning_once() {
    let checkout = Checkout::of_git();
    checkout.says(&["start", "sums/add"]);
    checkout.fill("    let unused = 7;\n    a + b");
    let words = checkout.says(&["check"]);
    let building = "building sums: program and unit tests (the first time, this takes minutes)";
    for step in [building, "test two_and_two", "experiment large", "Done", "sums/double"] {
        assert!(words.contains(step), "no {step} in {words}");
    }
    assert_eq!(words.matches("unused variable: `unused`").count(), 1, "{words}");

    checkout.fill("    a +");
    let words = checkout.refuses(&["check"]);
    assert_eq!(words.matches("error: expected expression").count(), 1, "{words}");
    assert!(words.contains("it does not compile") && !words.contains("test two"), "{words}");
}

#[test]
fn of_two_that_start_at_once_one_is_first_and_nothing_is_harmed() {
    let checkout = Checkout::of_git();
    for _ in 0..5 {
        let started = ["sums/add", "sums/double"].map(|key| {
            let mut start = checkout.practice(&["start", key]);
            start.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            start.spawn().unwrap()
        });
        let good = started.map(|mut start| start.wait().unwrap().success());
        assert!(good == [true, false] || good == [false, true], "{good:?}");
        let list = checkout.says(&[]);
        let key = if good[0] { "sums/add" } else { "sums/double" };
        assert!(list.contains(&format!("You are at {key}")), "{list}");
        checkout.says(&["reset"]);
        checkout.git(&["diff", "--exit-code"]);
    }
}

#[test]
fn an_exercise_that_a_pull_renames_stands_in_nobodys_way() {
    let checkout = Checkout::of_git();
    checkout.says(&["start", "sums/add"]);
    checkout.git(&["mv", "crates/sums/exercises/add.md", "crates/sums/exercises/plus.md"]);
    for words in [&["check"][..], &["hint"], &["solution"]] {
        let refused = checkout.refuses(words);
        assert!(refused.contains("no longer exists") && refused.contains("reset"), "{refused}");
    }
    checkout.says(&[]);
    checkout.says(&["start", "sums/double"]);
    assert!(!checkout.code().contains("todo!"), "the gap stayed");
    checkout.says(&["reset"]);
}

#[test]
fn a_download_without_git_works_and_keeps_what_the_reader_wrote() {
    let checkout = Checkout::unpacked();
    let before = checkout.code();
    checkout.says(&["start", "sums/add"]);
    assert!(checkout.code().contains("todo!(\"add\")"));
    checkout.says(&["reset"]);
    assert_eq!(checkout.code(), before);

    checkout.says(&["start", "sums/add"]);
    checkout.fill("    b + a");
    let words = checkout.says(&["check"]);
    assert!(words.contains("Done") && !words.contains("git"), "{words}");
    let words = checkout.says(&["start", "sums/double"]);
    assert!(words.contains(".practice/sums-add-1.rs"), "{words}");
    assert_eq!(checkout.code(), before);
    let kept = fs::read_to_string(checkout.path(".practice/sums-add-1.rs")).unwrap();
    assert!(kept.contains("    b + a\n"), "{kept}");
}

#[test]
fn a_checkout_of_windows_works_and_so_do_lines_that_an_editor_ended_otherwise() {
    let origin = Checkout::of_git();
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("clone");
    let clone = clone.to_str().unwrap();
    let from = origin.0.path().to_str().unwrap();
    origin.git(&["-c", "core.autocrlf=true", "clone", "--quiet", from, clone]);
    let code = fs::read_to_string(format!("{clone}/crates/sums/src/lib.rs")).unwrap();
    assert_eq!(code, origin.code(), ".gitattributes does not keep the ends of lines");

    // Nothing keeps them in a download, or in an editor.
    let checkout = Checkout::unpacked();
    for file in ["src/lib.rs", "src/double.rs", "exercises/add.md", "exercises/double.md"] {
        let path = checkout.path(&format!("crates/sums/{file}"));
        let text = fs::read_to_string(&path).unwrap().replace('\n', "\r\n");
        fs::write(path, text).unwrap();
    }
    let before = checkout.code();
    checkout.says(&["start", "sums/add"]);
    let gapped = checkout.code();
    assert_eq!(gapped.matches('\n').count(), gapped.matches("\r\n").count(), "{gapped:?}");
    fs::write(checkout.path("crates/sums/src/lib.rs"), gapped.replace("\r\n", "\n")).unwrap();
    checkout.says(&["reset"]);
    assert_eq!(checkout.code(), before);
    checkout.says(&["start", "sums/add"]);
    checkout.fill("    a + b");
    let words = checkout.says(&["check"]);
    assert!(words.contains("Done"), "{words}");
}

#[test]
fn ctrl_c_ends_a_check_and_what_it_runs() {
    let checkout = Checkout::of_git();
    checkout.says(&["start", "sums/add"]);
    let folder = checkout.0.path().display();
    checkout.fill(&format!(
        "    let _ = (a, b);\n    std::fs::write(\"{folder}/new\", std::process::id().to_string()).unwrap();\n    \
         std::fs::rename(\"{folder}/new\", \"{folder}/pid\").unwrap();\n    loop {{}}"
    ));
    let mut check = checkout.practice(&["check"]);
    let check = check.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let check = check.spawn().unwrap();
    let pid =
        checkout::eventually("the test runs", || fs::read_to_string(checkout.path("pid")).ok());
    let sent = Command::new("kill").args(["-INT", &check.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let output = check.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(!lives(&pid), "process {pid} goes on");
}
