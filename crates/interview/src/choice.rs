//! What is asked next? The reader names a question, a level or a set; what is weak or long ago comes first.

use std::hash::{DefaultHasher, Hash, Hasher};

use time::OffsetDateTime;

use crate::{
    chapter::Difficulty,
    memory::{Look, Memory, Went, look, rank},
    progress::Progress,
    session::{Recall, Session, points},
    sheet::Stage,
    step::Plan,
    subject::Subject,
};

/// What the reader wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Whatever is best now.
    Any,
    /// One question of each level.
    OneOfEach,
    /// Everything that was never asked.
    New,
    /// All of a level.
    Level(Difficulty),
    /// This one.
    Answer(String),
}

impl From<&str> for Wish {
    fn from(text: &str) -> Self {
        match text.trim() {
            "" | "any" => Self::Any,
            "one-of-each" => Self::OneOfEach,
            "new" => Self::New,
            word => {
                Difficulty::named(word).map_or_else(|| Self::Answer(word.to_owned()), Self::Level)
            }
        }
    }
}

/// The questions of a wish, in the order in which they are asked. Empty if there are none.
pub fn queue<'a>(
    wish: &Wish,
    subjects: &'a [Subject],
    progress: &Progress,
    now: OffsetDateTime,
) -> Vec<&'a Subject> {
    let mut sorted: Vec<_> = subjects.iter().collect();
    // The sort is stable: among new ones, the easiest comes first.
    sorted.sort_by_key(|subject| rank(memory(subject, progress, now), now));
    match wish {
        Wish::Any => sorted.truncate(1),
        Wish::OneOfEach => {
            let first =
                |difficulty| sorted.iter().find(|it| it.chapter.difficulty == difficulty).copied();
            return Difficulty::ALL.into_iter().filter_map(first).collect();
        }
        Wish::New => sorted.retain(|it| progress.interviews_of(&it.name).next().is_none()),
        Wish::Level(difficulty) => sorted.retain(|it| it.chapter.difficulty == *difficulty),
        Wish::Answer(name) => sorted.retain(|it| it.name == *name),
    }
    sorted
}

impl Progress {
    /// Begins to ask what the reader wishes, one question after another. Returns whether there is anything to ask.
    /// While an interview goes on, it goes on.
    pub fn begin(&mut self, wish: &Wish, subjects: &[Subject], now: OffsetDateTime) -> bool {
        if self.current.is_none() {
            let names = queue(wish, subjects, self, now).iter().map(|it| it.name.clone()).collect();
            self.queue = names;
            self.begin_next(subjects, now);
        }
        self.current.is_some()
    }

    /// Begins the next question of the set, if none goes on.
    pub fn begin_next(&mut self, subjects: &[Subject], now: OffsetDateTime) {
        if self.current.is_some() {
            return;
        }
        let Some(subject) = self.next_of_set(subjects) else { return };
        let at = self.queue.iter().position(|name| *name == subject.name).unwrap_or_default();
        self.queue.drain(..=at);
        self.current = Some(Session::begin(subject, plan(subject, self, now), now));
    }

    /// The next question of the set. One that is not in the book any more is left out.
    pub fn next_of_set<'a>(&self, subjects: &'a [Subject]) -> Option<&'a Subject> {
        self.queue.iter().find_map(|name| subjects.iter().find(|subject| subject.name == *name))
    }
}

/// How well the reader knows a question, by their interviews.
pub fn memory(subject: &Subject, progress: &Progress, now: OffsetDateTime) -> Option<Memory> {
    Memory::of(progress.interviews_of(&subject.name).map(look), now)
}

/// How well the reader knows a sentence.
pub fn memory_of_sentence(
    answer: &str,
    says: &str,
    progress: &Progress,
    now: OffsetDateTime,
) -> Option<Memory> {
    let judged = progress.judged.iter().filter(|it| it.answer == answer && it.says == says);
    let looks =
        judged.map(|it| Look { at: it.at, went: if it.right { Went::Well } else { Went::Badly } });
    Memory::of(looks, now)
}

/// What is picked of a chapter: what was missed the last time, then what was never asked, then the rest.
pub fn plan(subject: &Subject, progress: &Progress, now: OffsetDateTime) -> Plan {
    let (traps, breaks, follow_ups) = Plan::sizes(subject.sheet.kind);
    let seed = now.unix_timestamp();
    let name = &subject.name;
    let says = subject.chapter.sentences.iter().map(|it| &it.says);
    let traps =
        picked(says, traps, seed, |says| rank(memory_of_sentence(name, says, progress, now), now));
    let recalled = |words: &str| {
        let last = progress.interviews_of(name).rev().find_map(|it| it.notes.recalled.get(words));
        match last {
            Some(Recall::Missed) => 0,
            Some(Recall::Partly) => 1,
            None => 2,
            Some(Recall::Said) => 3,
        }
    };
    let what = subject.chapter.breaks.iter().map(|it| &it.what);
    let questions = subject.chapter.follow_ups.iter().filter(|it| it.is_asked());
    let questions = questions.map(|it| &it.question);
    let mut plan = Plan {
        estimates: subject.sheet.estimates.iter().map(|it| it.of.clone()).collect(),
        checklists: Vec::new(),
        later: subject.chapter.later.clone(),
        traps,
        breaks: picked(what, breaks, seed, recalled),
        follow_ups: picked(questions, follow_ups, seed, recalled),
    };
    let has_points = |stage: &Stage| points(&plan, subject, *stage).next().is_some();
    plan.checklists = Stage::ALL.into_iter().filter(has_points).collect();
    plan
}

/// The first of these by rank. Those of one rank are shuffled, each time in another way.
fn picked<'a, K: Ord>(
    all: impl Iterator<Item = &'a String>,
    count: usize,
    seed: i64,
    rank: impl Fn(&str) -> K,
) -> Vec<String> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_cached_key(|words| (rank(words), shuffled(seed, words)));
    all.into_iter().take(count).cloned().collect()
}

/// A number that orders words by chance, and for one seed always in the same way.
pub fn shuffled(seed: i64, words: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, words).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outcome::{Outcome, tests::outcome},
        sheet::Level,
        subject::small,
    };

    fn day(day: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000 + day)
    }

    fn subject(name: &str, difficulty: Difficulty) -> Subject {
        let mut subject = small();
        name.clone_into(&mut subject.name);
        subject.chapter.difficulty = difficulty;
        subject
    }

    fn subjects() -> Vec<Subject> {
        use Difficulty::{Advanced, Beginner, Intermediate};
        [("a", Beginner), ("b", Beginner), ("c", Intermediate), ("d", Advanced), ("e", Advanced)]
            .map(|(name, difficulty)| subject(name, difficulty))
            .to_vec()
    }

    fn held(answer: &str, level: Option<Level>, ended: i64) -> Outcome {
        Outcome { answer: answer.to_owned(), level, ended: day(ended), ..outcome(&[0], &[], 0) }
    }

    fn names(wish: &str, progress: &Progress, today: i64) -> Vec<String> {
        let subjects = subjects();
        queue(&wish.into(), &subjects, progress, day(today))
            .iter()
            .map(|it| it.name.clone())
            .collect()
    }

    #[test]
    fn the_reader_chooses_a_question_a_level_or_a_set() {
        let progress =
            Progress { interviews: vec![held("a", Some(Level::Senior), 0)], ..Progress::default() };
        assert_eq!(names("c", &progress, 0), ["c"]);
        assert_eq!(names("advanced", &progress, 0), ["d", "e"]);
        assert_eq!(names("one-of-each", &progress, 0), ["b", "c", "d"]);
        assert_eq!(names("new", &progress, 0), ["b", "c", "d", "e"]);
        assert_eq!(names("x", &progress, 0), Vec::<String>::new());
    }

    #[test]
    fn a_set_is_asked_one_after_another_and_without_what_has_gone() {
        let subjects = [small()];
        let queue = ["gone", "sums"].map(str::to_owned).to_vec();
        let mut progress = Progress { queue, ..Progress::default() };
        assert_eq!(progress.next_of_set(&subjects).map(|it| &*it.name), Some("sums"));
        progress.begin_next(&subjects, day(1));
        assert_eq!(progress.current.as_ref().map(|it| &*it.answer), Some("sums"));
        assert!(progress.queue.is_empty());
        assert!(progress.begin(&Wish::Any, &subjects, day(2)), "it goes on");
        assert_eq!(progress.current.as_ref().unwrap().begun, day(1));
        progress.give_up();
        assert!(!progress.begin(&Wish::Answer("gone".to_owned()), &subjects, day(3)));
    }

    #[test]
    fn what_was_weak_or_long_ago_comes_first() {
        let interviews = vec![
            held("a", Some(Level::Senior), 0),
            held("e", None, 0),
            held("d", Some(Level::Mid), 0),
        ];
        let progress = Progress { interviews, ..Progress::default() };
        assert_eq!(names("", &progress, 0), ["b"], "what was asked today is not asked again");
        assert_eq!(names("", &progress, 1), ["e"], "it went badly");
        let tomorrow = names("beginner", &progress, 1);
        assert_eq!(tomorrow, ["b", "a"], "the new one before what is still fresh");
        let in_a_year = names("beginner", &progress, 365);
        assert_eq!(in_a_year, ["a", "b"], "long ago");
    }

    #[test]
    fn what_was_missed_is_asked_again() {
        let subject = small();
        let mut last = held("sums", None, 0);
        last.notes.recalled = [
            ("There are too many".to_owned(), Recall::Missed),
            ("And negative ones?".to_owned(), Recall::Said),
        ]
        .into();
        let progress = Progress { interviews: vec![last], ..Progress::default() };
        for today in 0..20 {
            let plan = plan(&subject, &progress, day(today));
            assert_eq!(plan.breaks[0], "There are too many");
            assert_eq!((plan.traps.len(), plan.breaks.len(), plan.follow_ups.len()), (3, 2, 3));
            assert_eq!(plan.follow_ups[2], "And negative ones?", "known, so it comes last");
        }
    }

    #[test]
    fn a_checklist_is_left_out_if_nothing_of_it_was_asked() {
        let mut subject = small();
        subject.chapter.later = "And then?".to_owned();
        let has_follow_ups = |subject: &Subject| {
            let plan = plan(subject, &Progress::default(), day(1));
            assert_eq!(plan.later, "And then?");
            plan.checklists.contains(&Stage::FollowUps)
        };
        assert!(has_follow_ups(&subject), "three of three are drawn");
        subject.sheet.kind = crate::sheet::Kind::Concept;
        let drawn = plan(&subject, &Progress::default(), day(1)).follow_ups;
        let all = subject.chapter.follow_ups.iter().map(|it| &it.question);
        let left = all.clone().find(|it| !drawn.contains(it)).unwrap().clone();
        subject.sheet.points.iter_mut().filter(|it| it.stage == Stage::FollowUps).for_each(|it| {
            it.follow_up = Some(left.clone());
        });
        assert!(!has_follow_ups(&subject), "{left} is not drawn");
    }

    #[test]
    fn no_interviewer_asks_for_the_libraries_of_other_languages() {
        let mut subject = small();
        subject.chapter.follow_ups[1].question = "In your language?".to_owned();
        for today in 0..20 {
            let mut drawn = plan(&subject, &Progress::default(), day(today)).follow_ups;
            drawn.sort();
            assert_eq!(drawn, ["And in parallel?", "And negative ones?"]);
        }
    }

    #[test]
    fn another_interview_asks_other_things() {
        let plans = (0..20).map(|today| plan(&small(), &Progress::default(), day(today)).traps);
        let plans: std::collections::BTreeSet<_> = plans.collect();
        assert!(plans.len() > 1);
    }
}
