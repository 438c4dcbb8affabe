//! How far is the reader? `.progress/progress.json` remembers it. Git ignores this file, so it survives a restart, a
//! `git pull` and a `cargo clean`.
//!
//! Invariant: a file that we cannot read is never overwritten, and a written file is always whole and can be read back.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
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
        let read = |bytes| Self::parse(&String::from_utf8(bytes)?);
        match fs::read(&path) {
            Ok(bytes) => read(bytes).with_context(|| {
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
                "a newer version of this program wrote it (version {version}; this one reads version {VERSION}). Run \
                 `git pull`"
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
        // A link stays a link: the file may be in a folder that is synchronized.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let text = self.text()?;
        // What cannot be read back would cost the reader everything that the file holds.
        Self::parse(&text).context("this change is not kept, because it could not be read back")?;
        let write = || {
            let folder = path.parent().context("it has no folder")?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            // Before the new name: after a power failure there is the old file or the new one.
            file.as_file().sync_all()?;
            file.persist(&path)?;
            anyhow::Ok(())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Gives up the interview that goes on, and the set.
    pub fn give_up(&mut self) {
        self.current = None;
        self.queue.clear();
    }

    /// Keeps an interview that goes on. Refuses if the same interview went on or was ended elsewhere meanwhile: in a
    /// browser, or in another terminal. `taken` is how many inputs it had when the caller saw it.
    pub fn keep(&mut self, session: Session, taken: usize) -> anyhow::Result<()> {
        let known = self.same(&session.answer, session.begun)?;
        ensure!(known.taken == taken, "this interview went on elsewhere: continue it there");
        *known = session;
        Ok(())
    }

    /// Ends the interview that goes on, and keeps its result and its verdicts.
    pub fn finish(&mut self, outcome: Outcome) -> anyhow::Result<()> {
        self.same(&outcome.answer, outcome.begun)?;
        let judged = outcome.notes.verdicts.iter().map(|(says, judgement)| Judged {
            at: outcome.ended,
            answer: outcome.answer.clone(),
            says: says.clone(),
            right: judgement.right,
        });
        self.judged.extend(judged);
        self.interviews.push(outcome);
        self.current = None;
        Ok(())
    }

    /// The interview that goes on, if it is this one.
    fn same(&mut self, answer: &str, begun: OffsetDateTime) -> anyhow::Result<&mut Session> {
        let known = self.current.as_mut().filter(|it| it.answer == answer && it.begun == begun);
        known.context(
            "this interview was ended elsewhere: `cargo run -- interview export` shows its result",
        )
    }

    /// The results of this answer's interviews, the oldest first.
    pub fn interviews_of(&self, answer: &str) -> impl DoubleEndedIterator<Item = &Outcome> {
        self.interviews.iter().filter(move |outcome| outcome.answer == answer)
    }

    /// Adds everything that another progress has and this one does not. Only one interview can go on: returns the
    /// other's if it is left out.
    pub fn merge(&mut self, other: Self) -> Option<Session> {
        let Self { version: _, current, queue, interviews, judged, read, ran, predicted, stories } =
            other;
        // By what they are about and not by equality: another program may have rounded a number.
        add(&mut self.interviews, interviews, |a, b| (a.begun, &a.answer) == (b.begun, &b.answer));
        self.interviews.sort_by(|a, b| (a.begun, &a.answer).cmp(&(b.begun, &b.answer)));
        add(&mut self.judged, judged, |a, b| {
            (a.at, &a.answer, &a.says) == (b.at, &b.answer, &b.says)
        });
        self.judged.sort();
        self.read.extend(read);
        self.ran.extend(ran);
        add(&mut self.predicted, predicted, |a, b| {
            (a.at, &a.answer, &a.experiment) == (b.at, &b.answer, &b.experiment)
        });
        self.predicted.sort_by_key(|prediction| prediction.at);
        add(&mut self.stories, stories, PartialEq::eq);
        // An interview that was finished on one machine does not go on on the other.
        let current = current.filter(|session| !self.has_finished(session));
        if self.current.as_ref().is_some_and(|session| self.has_finished(session)) {
            self.current = None;
        }
        if self.queue.is_empty() {
            self.queue = queue;
        }
        match (&self.current, current) {
            (Some(ours), Some(theirs))
                if (ours.begun, &ours.answer) == (theirs.begun, &theirs.answer) =>
            {
                if theirs.taken > ours.taken {
                    self.current = Some(theirs);
                }
                None
            }
            (Some(_), theirs) => theirs,
            (None, theirs) => {
                self.current = theirs;
                None
            }
        }
    }

    /// Adds another progress to this one, and says in words what came of it.
    pub fn import(&mut self, other: Self) -> String {
        let before = self.interviews.len();
        let left = self.merge(other);
        let after = self.interviews.len();
        let mut words = format!("{after} interviews, {} of them new.", after - before);
        if let (Some(left), Some(current)) = (left, &self.current) {
            words += &format!(
                " Its interview about {} is left out, because you are in one about {}. End yours, and import the file \
                 again.",
                left.answer, current.answer
            );
        }
        words
    }

    fn has_finished(&self, session: &Session) -> bool {
        self.interviews_of(&session.answer).any(|outcome| outcome.begun == session.begun)
    }
}

fn add<T>(all: &mut Vec<T>, more: Vec<T>, is_same: impl Fn(&T, &T) -> bool) {
    for one in more {
        if !all.iter().any(|known| is_same(known, &one)) {
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
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
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
            progress.current = Some(Session::begin(&small(), plan(), at(0)));
            progress.finish(outcome(&[0], &[0], 1))?;
            progress.judged.push(judgement(3, true));
            progress.read.insert("sums".to_owned());
            progress.current = Some(session.clone());
            Ok(())
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
            (&b"{\"version\": 1, \"interviews\""[..], "EOF"),
            (b"", "EOF"),
            (b"[]", "no version"),
            (b"{\"version\": 2}", "`git pull`"),
            (b"{\"version\": 1, \"more\": 1}", "unknown field `more`"),
            (b"{\"version\": 1, \"more\": \"\xff\"}", "utf-8"),
        ] {
            fs::write(&path, text).unwrap();
            let changed = Progress::change(root.path(), |progress| {
                progress.judged.push(judgement(3, true));
                Ok(())
            });
            let error = format!("{:#}", changed.unwrap_err());
            assert!(error.contains(problem) && error.contains("left as it is"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), text);
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
        let session = Session::begin(&small(), plan(), at(7));
        let mut progress = Progress { current: Some(session.clone()), ..Progress::default() };
        let further = Session { taken: 1, ..session.clone() };
        progress.keep(further.clone(), 0).unwrap();
        let error = progress.keep(further.clone(), 0).unwrap_err().to_string();
        assert!(error.contains("went on elsewhere"), "{error}");
        let other = Session { begun: at(8), ..session };
        assert!(progress.keep(other, 0).is_err());
        assert_eq!(progress.current, Some(further));
    }

    #[test]
    fn an_interview_that_was_ended_elsewhere_stays_ended_and_counts_once() {
        let session = Session::begin(&small(), plan(), at(0));
        let begun = Progress { current: Some(session.clone()), ..Progress::default() };
        // Finished here, and still open in another terminal.
        let mut progress = begun.clone();
        progress.finish(outcome(&[0], &[], 0)).unwrap();
        let ended = progress.clone();
        let error = progress.keep(session.clone(), 0).unwrap_err().to_string();
        assert!(error.contains("ended elsewhere"), "{error}");
        progress.finish(outcome(&[0], &[], 0)).unwrap_err();
        assert_eq!(progress, ended);
        // Given up here, and finished in another terminal.
        let mut progress = begun;
        progress.give_up();
        assert!(progress.keep(session, 0).is_err());
        progress.finish(outcome(&[0], &[], 0)).unwrap_err();
        assert!(progress.interviews.is_empty());
    }

    #[test]
    fn a_change_that_could_not_be_read_back_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let prediction = |value| Prediction {
            at: at(1),
            answer: "sums".to_owned(),
            experiment: "many".to_owned(),
            check: None,
            figure: Some(("seconds".to_owned(), value)),
        };
        let predict = |value| {
            Progress::change(root.path(), |progress| {
                progress.predicted.push(prediction(value));
                Ok(())
            })
        };
        predict(2.0).unwrap();
        let error = format!("{:#}", predict(f64::INFINITY).unwrap_err());
        assert!(error.contains("not kept"), "{error}");
        assert_eq!(Progress::load(root.path()).unwrap().predicted, [prediction(2.0)]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let (root, synchronized) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = synchronized.path().join("mine.json");
        fs::write(&target, Progress::default().text().unwrap()).unwrap();
        fs::create_dir(folder(root.path())).unwrap();
        std::os::unix::fs::symlink(&target, path(root.path())).unwrap();
        Progress::change(root.path(), |progress| {
            progress.judged.push(judgement(3, true));
            Ok(())
        })
        .unwrap();
        assert!(path(root.path()).is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("Addition is quick"));
    }

    #[test]
    fn an_import_takes_an_interview_that_goes_on_but_not_one_that_is_over() {
        let session = Session::begin(&small(), plan(), at(0));
        let begun = Progress { current: Some(session.clone()), ..Progress::default() };
        let mut finished = begun.clone();
        finished.finish(outcome(&[0], &[], 0)).unwrap();
        let mut merged = finished.clone();
        assert_eq!(merged.merge(begun.clone()), None);
        assert_eq!(merged, finished, "an older export does not revive it");
        let mut merged = begun.clone();
        assert_eq!(merged.merge(finished.clone()), None);
        assert_eq!((merged.current, merged.interviews), (None, finished.interviews));
        let further = Session { taken: 3, ..session.clone() };
        let mut merged = begun.clone();
        merged.merge(Progress { current: Some(further.clone()), ..Progress::default() });
        assert_eq!(merged.current, Some(further));
        let other = Session { begun: at(9), ..session.clone() };
        let mut merged = begun;
        let left = merged.merge(Progress { current: Some(other.clone()), ..Progress::default() });
        assert_eq!((left, merged.current), (Some(other), Some(session)));
    }

    /// An interview that began at this second, with a number that has many digits.
    fn held(second: i64) -> Outcome {
        let mut one = outcome(&[0], &[], 1);
        one.begun = at(second);
        for guess in one.notes.estimates.values_mut() {
            guess.off_by = Some(1.0 + f64::from(u8::try_from(second).unwrap()) / 7.0);
        }
        one
    }

    fn some_progress() -> impl Strategy<Value = Progress> {
        let judged = proptest::collection::btree_set(0_i64..5, 0..6);
        let read = proptest::collection::btree_set("[ab]", 0..3);
        let interviews = proptest::collection::btree_set(0_i64..4, 0..3);
        (judged, read, interviews).prop_map(|(judged, read, interviews)| Progress {
            judged: judged.into_iter().map(|second| judgement(second, second % 2 == 0)).collect(),
            interviews: interviews.into_iter().map(held).collect(),
            read,
            ..Progress::default()
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
            for held in one.interviews.iter().chain(&other.interviews) {
                prop_assert_eq!(merged.interviews.iter().filter(|it| *it == held).count(), 1);
            }
            let mut turned = other.clone();
            turned.merge(one.clone());
            prop_assert_eq!(&turned, &merged);
            merged.merge(other);
            prop_assert_eq!(turned, merged);
        }

        #[test]
        fn a_progress_is_the_same_after_a_journey_through_its_file(progress in some_progress()) {
            let text = progress.text().unwrap();
            prop_assert_eq!(&Progress::parse(&text).unwrap(), &progress);
            let mut merged = progress.clone();
            merged.merge(Progress::parse(&text).unwrap());
            prop_assert_eq!(merged, progress);
        }
    }
}
