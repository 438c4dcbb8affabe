//! Does a reader get through a whole interview in a terminal? The tests start the program and type what a reader types.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

use std::{
    fs,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A workspace with one small answer.
struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workspace/crates/sums");
        let to = folder.path().join("crates/sums");
        fs::create_dir_all(&to).unwrap();
        for file in ["chapter.md", "interview.toml", "measured.json"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
        Self(folder)
    }

    fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_interview"));
        command.args(words).env("CARGO_MANIFEST_DIR", self.0.path().join("crates/interview"));
        command
    }

    fn reader(&self, words: &[&str]) -> Reader {
        let mut command = self.program(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (send, shown) = channel();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = output.read(&mut bytes)
                && count > 0
                && send.send(bytes[..count].to_vec()).is_ok()
            {}
        });
        Reader { input: child.stdin.take(), child, shown, bytes: Vec::new(), read: 0 }
    }

    /// What a command prints. It must succeed.
    fn says(&self, words: &[&str]) -> String {
        let output = self.program(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn progress(&self) -> PathBuf {
        self.0.path().join(".progress/progress.json")
    }
}

/// Somebody in front of the program.
struct Reader {
    child: Child,
    input: Option<ChildStdin>,
    shown: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    /// How much of the text this reader has read.
    read: usize,
}

impl Reader {
    /// Reads on until these words. Returns what stands before them.
    fn sees(&mut self, words: &str) -> String {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let text = String::from_utf8_lossy(&self.bytes[self.read..]).into_owned();
            if let Some(at) = text.find(words) {
                self.read += at + words.len();
                return text[..at].to_owned();
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(more) => self.bytes.extend(more),
                Err(error) => panic!("no {words:?} in {text}: {error}"),
            }
        }
    }

    fn types(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// Waits for the end of the program, which must be a good one.
    fn ends(self) -> String {
        let (status, said) = self.end();
        assert!(status.success(), "{said}");
        said
    }

    /// Closes the input and waits for the end of the program.
    fn end(mut self) -> (ExitStatus, String) {
        drop(self.input.take());
        let until = Instant::now() + Duration::from_mins(1);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "the program does not end");
            thread::sleep(Duration::from_millis(20));
        };
        while let Ok(more) = self.shown.recv() {
            self.bytes.extend(more);
        }
        (status, String::from_utf8_lossy(&self.bytes[self.read..]).into_owned())
    }

    /// Judges a sentence, whichever it is: says that it is wrong.
    fn judges(&mut self) {
        self.sees("Everybody says:");
        self.types("3");
        self.sees("Enter goes on.");
        self.types("");
    }

    /// Says aloud what is asked, and knows it.
    fn recalls(&mut self) {
        self.sees("Say it aloud.");
        self.types("");
        self.sees("I said it");
        self.types("1");
    }

    /// From the opening to the end of the design.
    fn goes_to_the_deep_dive(&mut self) {
        self.sees("Add two numbers. And when");
        let before = self.sees(" left of 5:00] > ");
        assert!(before.contains("[clarify, "), "{before}");
        self.types("How big are they?");
        self.types("And how many?");
        self.types(".");
        self.sees("| How big are they?");
        self.types("1 7");
        self.sees("there is no item 7");
        self.types("1 3");
        let answers = self.sees("Enter goes on.");
        assert!(
            answers.contains("Up to a billion each.") && answers.contains("Ten sums a second.")
        );
        assert!(!answers.contains("» No."), "that was not asked: {answers}");
        self.types("");
        self.sees("May they be negative?");
        self.types("");
        self.sees("Your points: clarify");
        self.types("1");
        self.sees("Estimate: sums a day. You know:");
        self.types("many");
        self.sees("is no number");
        self.types("/pause");
        self.sees("The clock is stopped.");
        self.types("");
        self.types("10 * 100,000");
        self.sees("| 10 * 100,000");
        self.sees("Right.");
        self.sees("sums_per_second * 86400");
        self.types("");
        self.sees("Your points: estimate");
        self.types("1");
        self.sees("Design it");
        self.types("An adder.");
        self.types("");
        self.types("And a check, in a paragraph of its own.");
        self.types(".");
        self.sees("| An adder.");
        self.sees("| And a check");
        self.sees("one --> sum");
        self.types("1");
    }

    /// From the deep dive to the result.
    fn goes_to_the_result(&mut self) {
        for _ in 0..3 {
            self.judges();
        }
        for _ in 0..2 {
            self.recalls();
        }
        self.sees("Your points: deep dive");
        self.types("");
        for _ in 0..3 {
            self.recalls();
        }
        self.sees("Your points: follow-ups");
        self.types("");
        self.sees("Sum up");
        self.types("");
        self.sees("Your points: sum up");
        self.sees("I add them, and I check for an overflow.");
        self.types("");
        self.sees("Red flags");
        self.types("1");
        self.sees("How you spoke");
        self.types("1 2 3");
        self.sees("the result");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Also a program that a failed test has left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_reader_takes_a_whole_interview() {
    let workspace = Workspace::new();
    let mut reader = workspace.reader(&["interview"]);
    reader.sees("sums                 beginner      45 min  not asked yet");
    reader.types("");
    reader.goes_to_the_deep_dive();
    reader.goes_to_the_result();
    let result = reader.ends();
    for words in [
        "Level: junior.",
        "scoping",
        "Red flags",
        "“It always fits.” Three of four did not.",
        "run it now: cargo run -- sums experiment overflow",
    ] {
        assert!(result.contains(words), "no {words} in {result}");
    }
    let export = workspace.says(&["interview", "export"]);
    assert!(export.contains("| How do you add two numbers? | junior |"), "{export}");
    assert!(export.contains("> How big are they?\n> And how many?"), "{export}");
    let results = workspace.says(&["interview", "results"]);
    assert!(results.contains("Of 4 sentences, 3 judged"), "{results}");
    let again = workspace.reader(&["interview"]).ends();
    assert!(again.contains("45 min  junior on"), "{again}");
}

#[test]
fn a_reader_who_leaves_goes_on_another_day_where_they_were() {
    let workspace = Workspace::new();
    let mut reader = workspace.reader(&["interview", "sums"]);
    reader.sees("Add two numbers.");
    reader.types("How big?");
    reader.types("/quit");
    assert!(reader.ends().contains("Your interview is kept."));

    let mut reader = workspace.reader(&["interview"]);
    reader.sees("You are in an interview of");
    reader.types("");
    reader.sees("You have written so far:\nHow big?");
    reader.types("How many?");
    reader.types(".");
    reader.sees("| How many?");
    // The terminal is closed, without a word.
    drop(reader.input.take());
    reader.ends();

    let mut reader = workspace.reader(&["interview"]);
    reader.sees("/drop gives it up");
    reader.types("/drop");
    reader.sees("/drop once more");
    reader.types("/drop");
    reader.sees("not asked yet");
    reader.ends();
    assert!(!fs::read_to_string(workspace.progress()).unwrap().contains("How big?"));
}

#[test]
fn a_killed_program_loses_at_most_the_line_that_was_being_typed() {
    let workspace = Workspace::new();
    let mut reader = workspace.reader(&["interview", "sums"]);
    reader.sees("] > ");
    reader.types("How big?");
    reader.sees("] > ");
    drop(reader);
    let mut reader = workspace.reader(&["interview"]);
    reader.sees("Enter goes on with it");
    reader.types("");
    reader.sees("You have written so far:\nHow big?");
    reader.types(".");
    reader.sees("Tick only those");
    drop(reader);
    let mut reader = workspace.reader(&["interview"]);
    reader.sees("Enter goes on with it");
    reader.types("");
    reader.sees("| How big?");
    reader.ends();
}

#[test]
fn what_is_typed_on_the_way_back_is_kept_or_the_reader_hears_that_it_is_not() {
    let workspace = Workspace::new();
    let mut reader = workspace.reader(&["interview", "sums"]);
    reader.sees("] > ");
    reader.types("/quit");
    reader.ends();

    let mut reader = workspace.reader(&["interview"]);
    reader.sees("Enter goes on with it");
    reader.types("How big?");
    reader.sees("This is now a line of your answer: How big?");
    reader.sees("You have written so far:\nHow big?");
    reader.types(".");
    reader.sees("Tick only those");
    reader.types("/quit");
    reader.ends();

    let mut reader = workspace.reader(&["interview"]);
    reader.sees("Enter goes on with it");
    reader.types("1");
    reader.sees("\"1\" was not taken");
    reader.sees("Tick only those");
    reader.ends();
}

#[test]
fn who_wants_another_question_meanwhile_hears_when_it_comes() {
    let workspace = Workspace::new();
    let mut reader = workspace.reader(&["interview", "sums"]);
    reader.sees("] > ");
    reader.types("/quit");
    reader.ends();

    let mut reader = workspace.reader(&["interview", "beginner"]);
    reader.sees("beginner follows when it has ended");
    reader.types("/quit");
    reader.ends();

    let mut reader = workspace.reader(&["interview", "sums"]);
    assert!(!reader.sees("Enter goes on with it").contains("follows"));
    reader.types("/quit");
    reader.ends();

    let output = workspace.program(&["interview", "suns"]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "it is asked for at once");
}

#[test]
fn an_interview_that_was_given_up_elsewhere_is_not_revived() {
    let workspace = Workspace::new();
    let mut open = workspace.reader(&["interview", "sums"]);
    open.sees("] > ");
    let mut other = workspace.reader(&["interview"]);
    other.sees("/drop gives it up");
    other.types("/drop");
    other.sees("/drop once more");
    other.types("/drop");
    other.sees("What shall I ask?");
    other.types("suns");
    other.sees("There is nothing to ask for \"suns\"");
    other.types("/quit");
    other.ends();
    open.types("How big?");
    assert!(!open.end().0.success(), "it went on");
    assert!(fs::read_to_string(workspace.progress()).unwrap().contains("\"current\": null"));
}

#[test]
fn a_quiz_asks_all_sentences_and_shows_what_was_recorded() {
    let workspace = Workspace::new();
    let mut reader = workspace.reader(&["quiz"]);
    for at in 1..=4 {
        reader.sees(&format!("{at} of 4:"));
        reader.sees("Type the number");
        reader.types("4");
        reader.sees("1, 2 or 3");
        reader.types("3");
        if at < 4 {
            reader.sees("Enter goes on.");
            reader.types("");
        }
    }
    let end = reader.ends();
    assert!(end.contains("2 of 4 right.") && end.contains("2 of 4 sentences right"), "{end}");
    let said = workspace.says(&["interview", "results"]);
    assert!(said.contains("Of 4 sentences, 4 judged; 2 were right"), "{said}");
}

#[test]
fn a_broken_file_is_named_and_left_alone() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.progress().parent().unwrap()).unwrap();
    fs::write(workspace.progress(), "{\"version\": 1, \"interv").unwrap();
    for words in [&["interview", "sums"][..], &["quiz"], &["progress", "export"]] {
        let output = workspace.program(words).stdin(Stdio::null()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("left as it is"), "{words:?}: {error}");
    }
    assert_eq!(fs::read_to_string(workspace.progress()).unwrap(), "{\"version\": 1, \"interv");
}

#[test]
fn progress_goes_to_another_machine_and_is_added_to_what_is_there() {
    let (one, other) = (Workspace::new(), Workspace::new());
    let mut reader = one.reader(&["quiz"]);
    reader.sees("Type the number");
    reader.types("1");
    reader.sees("Enter goes on.");
    reader.ends();
    let file = one.0.path().join("exported.json");
    fs::write(&file, one.says(&["progress", "export"])).unwrap();
    for _ in 0..2 {
        other.says(&["progress", "import", file.to_str().unwrap()]);
        let said = other.says(&["interview", "results"]);
        assert!(said.contains("Of 4 sentences, 1 judged"), "{said}");
    }
}

#[test]
fn what_cannot_be_asked_is_an_error_that_says_what_to_do() {
    let workspace = Workspace::new();
    let output = workspace.program(&["interview", "suns"]).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("lists the questions"), "{error}");
}
