//! How far is a reader with a question? Read, predicted, run, practised and interviewed.

use std::collections::{BTreeMap, BTreeSet};

use interview::{
    choice::memory, outcome::Outcome, progress::Progress, quiz::done_today, subject::Subject,
};
use lab::{Answer, results};
use practice::{exercise::Exercise, progress::State as Attempt};
use time::OffsetDateTime;

use crate::reader::Reader;

/// Everything that the home page knows about a reader.
#[derive(Debug)]
pub struct Standing {
    /// Interviews, quizzes, predictions, and what was read.
    pub progress: Progress,
    /// The exercise that the reader is at.
    exercise: Option<String>,
    states: BTreeMap<&'static str, State>,
}

/// How far a reader is with one question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The chapter was read to its end.
    pub read: bool,
    /// How many experiments were predicted.
    pub predicted: usize,
    /// How many experiments were run, of how many.
    pub run: (usize, usize),
    /// How many exercises are done, of how many.
    pub practised: (usize, usize),
    /// The level of the last interview.
    pub interviewed: Option<&'static str>,
}

impl State {
    /// Whether anything was done.
    pub fn is_begun(&self) -> bool {
        let State { read, predicted, run, practised, interviewed } = self;
        *read || *predicted > 0 || run.0 > 0 || practised.0 > 0 || interviewed.is_some()
    }

    /// The five marks: the words, and whether it is done.
    pub fn marks(&self) -> [(String, bool); 5] {
        let of = |word: &str, (done, all): (usize, usize)| {
            (if done == 0 { word.to_owned() } else { format!("{word} {done} of {all}") }, done > 0)
        };
        let interviewed =
            self.interviewed.map_or("interviewed".to_owned(), |it| format!("interviewed: {it}"));
        [
            ("read".to_owned(), self.read),
            of("predicted", (self.predicted, self.run.1)),
            of("run", self.run),
            of("practised", self.practised),
            (interviewed, self.interviewed.is_some()),
        ]
    }
}

impl Standing {
    /// How far this reader is with these answers.
    pub fn of(reader: &Reader, answers: &[Answer], exercises: &[Exercise]) -> anyhow::Result<Self> {
        let progress = reader.progress()?;
        let practised = practice::progress::Progress::load(reader.workspace())?;
        // What was run in a terminal counts too. Its results are those of this workspace.
        let in_terminal = reader.workspace() == practice::workspace();
        let state = |answer: &Answer| {
            let ran = |name: &str| {
                progress.ran.contains(&format!("{}/{name}", answer.name))
                    || (in_terminal && results::is_kept(answer.name, name))
            };
            let predicted = progress.predicted.iter().filter(|it| it.answer == answer.name);
            let predicted: BTreeSet<_> = predicted.map(|it| &it.experiment).collect();
            let exercises = exercises.iter().filter(|it| it.key.answer == answer.name);
            let exercises: Vec<_> = exercises.map(|it| practised.state(&it.key)).collect();
            let done = exercises.iter().filter(|it| **it == Attempt::Done).count();
            let run = answer.experiments.iter().filter(|it| ran(it.name)).count();
            State {
                read: progress.read.contains(answer.name),
                predicted: predicted.len(),
                run: (run, answer.experiments.len()),
                practised: (done, exercises.len()),
                interviewed: progress
                    .interviews_of(answer.name)
                    .next_back()
                    .map(Outcome::level_in_words),
            }
        };
        let states = answers.iter().map(|answer| (answer.name, state(answer))).collect();
        Ok(Self { exercise: practised.current, states, progress })
    }

    /// The standing of somebody about whom nothing is known, as in a static book; there a script knows a little.
    pub fn of_nobody() -> Self {
        Self { progress: Progress::default(), exercise: None, states: BTreeMap::new() }
    }

    /// How far the reader is with this question.
    pub fn with(&self, answer: &Answer) -> State {
        self.states.get(answer.name).copied().unwrap_or_default()
    }

    /// What comes next: the words of a link, and where it leads.
    pub fn next(
        &self,
        answers: &[Answer],
        subjects: &[Subject],
        now: OffsetDateTime,
    ) -> (String, String) {
        let title = |name: &str| {
            let subject = subjects.iter().find(|it| it.name == name);
            subject.map_or_else(|| name.to_owned(), |it| it.chapter.title.clone())
        };
        if let Some(session) = &self.progress.current {
            let words = format!("Go on with your interview: {}", title(&session.answer));
            return (words, "interview.html".to_owned());
        }
        if let Some(current) = &self.exercise
            && let Some((answer, _)) = current.split_once('/')
        {
            return (
                format!("Go on with the exercise {current}"),
                format!("{answer}.html#extend-it"),
            );
        }
        let states: Vec<_> = answers.iter().map(|it| (it.name, self.with(it))).collect();
        let begun = states.iter().find(|(_, state)| state.is_begun() && !state.read);
        if let Some((name, _)) = begun {
            return (format!("Go on reading: {}", title(name)), format!("{name}.html"));
        }
        if !self.progress.judged.is_empty() && done_today(&self.progress, now) == 0 {
            return ("Judge today's ten sentences".to_owned(), "quiz.html".to_owned());
        }
        let interview = |name: &str| format!("interview.html?question={name}");
        let is_due = |subject: &&Subject| {
            memory(subject, &self.progress, now).is_some_and(|memory| memory.is_due(now))
        };
        if let Some(due) = subjects.iter().find(is_due) {
            let words = format!("Be asked again: {}", due.chapter.title);
            return (words, interview(&due.name));
        }
        let read = states.iter().find(|(_, state)| state.read && state.interviewed.is_none());
        if let Some((name, _)) = read {
            let words = format!("You have read “{}”. Now be asked about it", title(name));
            return (words, interview(name));
        }
        let unread = states.iter().find(|(_, state)| !state.read);
        match unread {
            Some((name, _)) => (format!("Read: {}", title(name)), format!("{name}.html")),
            None => ("Take an interview".to_owned(), "interview.html".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use interview::progress::Judged;

    use super::*;

    /// What comes next for a reader with this progress.
    fn next(change: impl FnOnce(&mut Progress)) -> String {
        let subjects: Vec<_> = Subject::all(&interview::workspace()).unwrap();
        let now = OffsetDateTime::UNIX_EPOCH;
        standing(change).next(&crate::answers(), &subjects, now).1
    }

    fn standing(change: impl FnOnce(&mut Progress)) -> Standing {
        let folder = tempfile::tempdir().unwrap();
        let reader = Reader::of(folder.path());
        let changed = reader.change(|progress| {
            change(progress);
            Ok(())
        });
        changed.unwrap();
        let exercises = Exercise::all(&practice::workspace()).unwrap();
        Standing::of(&reader, &crate::answers(), &exercises).unwrap()
    }

    #[test]
    fn the_way_leads_from_reading_to_the_interview() {
        let answers = crate::answers();
        let (first, second) = (answers[0].name, answers[1].name);
        assert_eq!(next(|_| {}), format!("{first}.html"));
        let read = |progress: &mut Progress| {
            progress.read.insert(first.to_owned());
        };
        let asked = format!("interview.html?question={first}");
        assert_eq!(next(read), asked, "about what was read");
        let begun = |progress: &mut Progress| {
            read(progress);
            progress.ran.insert(format!("{second}/{}", answers[1].experiments[0].name));
        };
        assert_eq!(next(begun), format!("{second}.html"));
        let judged = |ago| {
            move |progress: &mut Progress| {
                progress.read.insert(first.to_owned());
                progress.judged.push(Judged {
                    at: OffsetDateTime::UNIX_EPOCH - time::Duration::days(ago),
                    answer: second.to_owned(),
                    says: "So".to_owned(),
                    right: true,
                });
            }
        };
        assert_eq!(next(judged(1)), "quiz.html", "the ten of a new day come first");
        assert_eq!(next(judged(0)), asked, "and only once");
    }

    #[test]
    fn a_state_says_what_is_done() {
        let answer = &crate::answers()[0];
        let nothing = standing(|_| {}).with(answer);
        assert!(!nothing.is_begun() && nothing.marks().iter().all(|(_, done)| !done));
        let state = standing(|progress| {
            progress.read.insert(answer.name.to_owned());
            progress.ran.insert(format!("{}/{}", answer.name, answer.experiments[0].name));
        });
        let state = state.with(answer);
        assert!(state.is_begun() && state.marks()[0].1);
        assert_eq!(state.marks()[2].0, format!("run 1 of {}", answer.experiments.len()));
    }
}
