//! How far is the reader? `.progress/progress.json` remembers it. Git ignores this file, so it survives a restart, a
//! `git pull` and a `cargo clean`.
//!
//! Invariant: a file that we cannot read is never overwritten, and a written file is always whole.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{chapter::Verdict, outcome::Outcome, session::Session};

/// The form of the file that this program writes. A program that needs another form raises it.
const VERSION: u64 = 1;

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The form of the file.
    pub version: u64,
    /// The interview that goes on.
    #[serde(default)]
    pub current: Option<Session>,
    /// The questions that are asked after it, if the reader has chosen a set.
    #[serde(default)]
    pub queue: Vec<String>,
    /// The results of all interviews, the oldest first.
    #[serde(default)]
    pub interviews: Vec<Outcome>,
    /// Every sentence that was judged, in a quiz or in an interview.
    #[serde(default)]
    pub judged: Vec<Judged>,
    /// The chapters that were read to the end, by the answer's name.
    #[serde(default)]
    pub read: BTreeSet<String>,
    /// The experiments that were run, as `answer/experiment`.
    #[serde(default)]
    pub ran: BTreeSet<String>,
    /// What the reader predicted before a run.
    #[serde(default)]
    pub predicted: Vec<Prediction>,
    /// The reader's stories for behavioural questions.
    #[serde(default)]
    pub stories: Vec<Story>,
}

/// A sentence that was judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The answer whose chapter has it.
    pub answer: String,
    /// The sentence.
    pub says: String,
    /// Whether the reader's verdict was ours.
    pub right: bool,
}

/// A prediction: what the reader expected of an experiment, and what came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The answer's name.
    pub answer: String,
    /// The experiment's name.
    pub experiment: String,
    /// The check that it is about, and whether the reader expected it to hold.
    pub check: Option<(String, bool)>,
    /// The figure that it is about, and the value that the reader expected.
    pub figure: Option<(String, f64)>,
}

/// A story for a behavioural question, told as situation, task, action and result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// The question that it answers.
    pub question: String,
    /// Where and when.
    pub situation: String,
    /// What the reader had to do.
    pub task: String,
    /// What the reader did.
    pub action: String,
    /// What came of it, with a number.
    pub result: String,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            version: VERSION,
            current: None,
            queue: Vec::new(),
            interviews: Vec::new(),
            judged: Vec::new(),
            read: BTreeSet::new(),
            ran: BTreeSet::new(),
            predicted: Vec::new(),
            stories: Vec::new(),
        }
    }
}

impl Progress {
    /// Reads the progress of this workspace. Without a file, it is empty.
    pub fn load(workspace: &Path) -> anyhow::Result<Self> {
        let path = path(workspace);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).with_context(|| {
                format!(
                    "{} cannot be read. It is left as it is: repair it, or move it away to begin anew",
                    path.display()
                )
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Reads the text of such a file.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let json: serde_json::Value = serde_json::from_str(text)?;
        match json["version"].as_u64() {
            Some(VERSION) => Ok(serde_json::from_value(json)?),
            Some(version) => bail!(
                "it has version {version}, and this program knows version {VERSION}: `git pull` may bring a newer one"
            ),
            None => bail!("it has no version"),
        }
    }

    /// Its text, as the file has it.
    pub fn text(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads, changes and writes the progress. Meanwhile no other program changes it. If `change` fails, nothing is
    /// written.
    pub fn change<T>(
        workspace: &Path,
        change: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let _lock = lock(workspace)?;
        let mut progress = Self::load(workspace)?;
        let before = progress.clone();
        let changed = change(&mut progress)?;
        if progress != before {
            progress.store(workspace)?;
        }
        Ok(changed)
    }

    /// Writes the file completely or not at all.
    fn store(&self, workspace: &Path) -> anyhow::Result<()> {
        let path = path(workspace);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder(workspace))?;
            file.write_all(self.text()?.as_bytes())?;
            // Before the new name: after a power failure there is the old file or the new one.
            file.as_file().sync_all()?;
            file.persist(&path)?;
            anyhow::Ok(())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Keeps an interview that goes on. Refuses if the same interview went on elsewhere meanwhile: in a browser, or in
    /// another terminal. `taken` is how many inputs it had when the caller saw it.
    pub fn keep(&mut self, session: Session, taken: usize) -> anyhow::Result<()> {
        if let Some(known) = &self.current {
            let is_same = known.begun == session.begun && known.answer == session.answer;
            ensure!(is_same, "another interview has begun meanwhile: {}", known.answer);
            ensure!(known.taken == taken, "this interview went on elsewhere: continue it there");
        }
        self.current = Some(session);
        Ok(())
    }

    /// Ends the interview that goes on, and keeps its result and its verdicts.
    pub fn finish(&mut self, outcome: Outcome) {
        let judged = outcome.notes.verdicts.iter().map(|(says, judgement)| Judged {
            at: outcome.ended,
            answer: outcome.answer.clone(),
            says: says.clone(),
            right: judgement.right,
        });
        self.judged.extend(judged);
        self.interviews.push(outcome);
        self.current = None;
    }

    /// Takes the next question of the set, if there is one.
    pub fn next_in_queue(&mut self) -> Option<String> {
        (!self.queue.is_empty()).then(|| self.queue.remove(0))
    }

    /// The results of this answer's interviews, the oldest first.
    pub fn interviews_of(&self, answer: &str) -> impl DoubleEndedIterator<Item = &Outcome> {
        self.interviews.iter().filter(move |outcome| outcome.answer == answer)
    }

    /// Adds everything that another progress has and this one does not. Nothing is lost.
    pub fn merge(&mut self, other: Self) {
        let Self { version: _, current, queue, interviews, judged, read, ran, predicted, stories } =
            other;
        if self.current.is_none() && self.queue.is_empty() {
            (self.current, self.queue) = (current, queue);
        }
        add(&mut self.interviews, interviews);
        self.interviews.sort_by(|a, b| (a.begun, &a.answer).cmp(&(b.begun, &b.answer)));
        add(&mut self.judged, judged);
        self.judged.sort();
        self.read.extend(read);
        self.ran.extend(ran);
        add(&mut self.predicted, predicted);
        self.predicted.sort_by_key(|prediction| prediction.at);
        add(&mut self.stories, stories);
    }
}

fn add<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

/// What the reader judged as holding, within limits or wrong, kept for the scheduler.
pub fn judged(
    answer: &str,
    says: &str,
    said: Verdict,
    truth: Verdict,
    at: OffsetDateTime,
) -> Judged {
    Judged { at, answer: answer.to_owned(), says: says.to_owned(), right: said == truth }
}

fn folder(workspace: &Path) -> PathBuf {
    workspace.join(".progress")
}

fn path(workspace: &Path) -> PathBuf {
    folder(workspace).join("progress.json")
}

/// Other programs wait as long as the returned file is open.
fn lock(workspace: &Path) -> anyhow::Result<File> {
    let path = folder(workspace).join("lock");
    let lock = || {
        fs::create_dir_all(folder(workspace))?;
        let file = File::create(&path)?;
        file.lock()?;
        anyhow::Ok(file)
    };
    lock().with_context(|| format!("cannot lock {}", path.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        outcome::tests::outcome,
        session::tests::{at, plan},
        subject::small,
    };

    fn judgement(second: i64, right: bool) -> Judged {
        judged("sums", "Addition is quick", Verdict::Holds, verdict(right), at(second))
    }

    fn verdict(right: bool) -> Verdict {
        if right { Verdict::Holds } else { Verdict::Wrong }
    }

    #[test]
    fn progress_survives_in_its_file_and_nothing_is_left_beside_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Progress::load(root.path()).unwrap(), Progress::default());
        let session = Session::begin(&small(), plan(), at(7));
        Progress::change(root.path(), |progress| {
            progress.finish(outcome(&[0], &[0], 1));
            progress.judged.push(judgement(3, true));
            progress.read.insert("sums".to_owned());
            progress.keep(session.clone(), 0)
        })
        .unwrap();
        let back = Progress::load(root.path()).unwrap();
        assert_eq!((back.current.as_ref(), back.interviews.len()), (Some(&session), 1));
        assert_eq!(back.judged.len(), 3, "the interview's two, and one of the quiz");
        let names = fs::read_dir(root.path().join(".progress")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["lock", "progress.json"]);
    }

    #[test]
    fn a_broken_file_is_an_error_and_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(".progress/progress.json");
        fs::create_dir(path.parent().unwrap()).unwrap();
        for (text, problem) in [
            ("{\"version\": 1, \"interviews\"", "EOF"),
            ("", "EOF"),
            ("[]", "no version"),
            ("{\"version\": 2}", "version 2"),
            ("{\"version\": 1, \"more\": 1}", "unknown field `more`"),
        ] {
            fs::write(&path, text).unwrap();
            let changed = Progress::change(root.path(), |progress| {
                progress.judged.push(judgement(3, true));
                Ok(())
            });
            let error = format!("{:#}", changed.unwrap_err());
            assert!(error.contains(problem) && error.contains("left as it is"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_change_that_fails_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let failed: anyhow::Result<()> = Progress::change(root.path(), |progress| {
            progress.judged.push(judgement(3, true));
            bail!("no")
        });
        failed.unwrap_err();
        assert_eq!(Progress::load(root.path()).unwrap(), Progress::default());
    }

    #[test]
    fn two_programs_that_write_at_once_lose_nothing() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for program in 0..4 {
                let root = root.path();
                scope.spawn(move || {
                    for second in 0..10 {
                        Progress::change(root, |progress| {
                            progress.judged.push(judgement(100 * program + second, true));
                            Ok(())
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(Progress::load(root.path()).unwrap().judged.len(), 40);
    }

    #[test]
    fn an_interview_that_went_on_elsewhere_is_not_overwritten() {
        let mut progress = Progress::default();
        let session = Session::begin(&small(), plan(), at(7));
        progress.keep(session.clone(), 0).unwrap();
        let further = Session { taken: 1, ..session.clone() };
        progress.keep(further.clone(), 0).unwrap();
        let error = progress.keep(further.clone(), 0).unwrap_err().to_string();
        assert!(error.contains("went on elsewhere"), "{error}");
        let other = Session { begun: at(8), ..session };
        assert!(progress.keep(other, 0).is_err());
        assert_eq!(progress.current, Some(further));
    }

    fn some_progress() -> impl Strategy<Value = Progress> {
        let judged = proptest::collection::vec((0_i64..5, any::<bool>()), 0..6);
        let read = proptest::collection::btree_set("[ab]", 0..3);
        (judged, read).prop_map(|(all, read)| {
            let mut progress = Progress { read, ..Progress::default() };
            // As a program writes them: in order, and each once.
            add(&mut progress.judged, all.into_iter().map(|it| judgement(it.0, it.1)).collect());
            progress.judged.sort();
            progress
        })
    }

    proptest! {
        #[test]
        fn an_import_loses_nothing_and_doubles_nothing(one in some_progress(), other in some_progress()) {
            let mut merged = one.clone();
            merged.merge(other.clone());
            for judged in one.judged.iter().chain(&other.judged) {
                prop_assert_eq!(merged.judged.iter().filter(|it| *it == judged).count(), 1);
            }
            prop_assert!(merged.read.is_superset(&one.read) && merged.read.is_superset(&other.read));
            let mut turned = other.clone();
            turned.merge(one.clone());
            prop_assert_eq!(&turned, &merged);
            merged.merge(other);
            prop_assert_eq!(turned, merged);
        }
    }
}
