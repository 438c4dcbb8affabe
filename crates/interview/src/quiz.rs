//! Which sentences are judged today? Ten: first those that are due, because they went wrong or are long ago, and then
//! new ones, from one chapter after another.

use time::OffsetDateTime;

use crate::{
    chapter::Sentence,
    choice::{memory_of_sentence, shuffled},
    memory::{Memory, rank},
    progress::Progress,
    subject::Subject,
};

/// How many sentences are judged on a day.
pub const DAILY: usize = 10;

/// A sentence of a chapter.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whose chapter it is.
    pub subject: &'a Subject,
    /// The sentence.
    pub sentence: &'a Sentence,
}

/// How far a reader is with all sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// All that there are.
    pub all: usize,
    /// Those that were judged.
    pub judged: usize,
    /// Those that were judged rightly the last time.
    pub right: usize,
    /// Those that are due.
    pub due: usize,
}

/// The next ten.
pub fn ten<'a>(
    subjects: &'a [Subject],
    progress: &Progress,
    now: OffsetDateTime,
) -> Vec<Question<'a>> {
    let day = i64::from(now.date().to_julian_day());
    let mut ranked = Vec::new();
    for subject in subjects {
        let mut of_chapter: Vec<_> = subject.chapter.sentences.iter().collect();
        of_chapter.sort_by_cached_key(|sentence| shuffled(day, &sentence.says));
        for (round, sentence) in of_chapter.into_iter().enumerate() {
            let rank = rank(memory(subject, sentence, progress, now), now);
            // The first new sentence of each chapter comes before the second of any.
            let key = (rank, round, shuffled(day, &subject.name));
            ranked.push((key, Question { subject, sentence }));
        }
    }
    ranked.sort_by_key(|(key, _)| *key);
    ranked.into_iter().map(|(_, question)| question).take(DAILY).collect()
}

fn memory(
    subject: &Subject,
    sentence: &Sentence,
    progress: &Progress,
    now: OffsetDateTime,
) -> Option<Memory> {
    memory_of_sentence(&subject.name, &sentence.says, progress, now)
}

/// How many sentences were judged on this day, as the reader's clock counts days.
pub fn done_today(progress: &Progress, now: OffsetDateTime) -> usize {
    let today = |at: OffsetDateTime| at.to_offset(now.offset()).date() == now.date();
    progress.judged.iter().filter(|it| today(it.at)).count()
}

/// How far the reader is with the sentences of these chapters.
pub fn score<'a>(
    subjects: impl IntoIterator<Item = &'a Subject>,
    progress: &Progress,
    now: OffsetDateTime,
) -> Score {
    let mut score = Score::default();
    for subject in subjects {
        for sentence in &subject.chapter.sentences {
            score.all += 1;
            let same = |it: &&crate::progress::Judged| {
                it.answer == subject.name && it.says == sentence.says
            };
            let last = progress.judged.iter().filter(same).max_by_key(|it| it.at);
            score.judged += usize::from(last.is_some());
            score.right += usize::from(last.is_some_and(|it| it.right));
            let is_due = memory(subject, sentence, progress, now).is_some_and(|it| it.is_due(now));
            score.due += usize::from(is_due);
        }
    }
    score
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chapter::Verdict, progress::judged, subject::small};

    fn day(day: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000 + day)
    }

    fn subjects() -> Vec<Subject> {
        let named = |name: &str| Subject { name: name.to_owned(), ..small() };
        ["a", "b", "c", "d"].map(named).to_vec()
    }

    fn said(answer: &str, says: &str, right: bool, at: OffsetDateTime) -> crate::progress::Judged {
        let said = if right { Verdict::Holds } else { Verdict::Wrong };
        judged(answer, says, said, Verdict::Holds, at)
    }

    #[test]
    fn new_sentences_come_from_one_chapter_after_another() {
        let subjects = subjects();
        let ten = ten(&subjects, &Progress::default(), day(0));
        assert_eq!(ten.len(), DAILY);
        let mut first: Vec<_> = ten[..4].iter().map(|it| &*it.subject.name).collect();
        first.sort_unstable();
        assert_eq!(first, ["a", "b", "c", "d"]);
    }

    #[test]
    fn what_went_wrong_yesterday_comes_first_and_what_went_well_does_not_come() {
        let subjects = subjects();
        let judged = vec![
            said("c", "Addition is quick", false, day(0)),
            said("a", "Addition is quick", true, day(0)),
        ];
        let progress = Progress { judged, ..Progress::default() };
        let ten = ten(&subjects, &progress, day(1));
        assert_eq!((&*ten[0].subject.name, &*ten[0].sentence.says), ("c", "Addition is quick"));
        let again =
            ten.iter().any(|it| it.subject.name == "a" && it.sentence.says == "Addition is quick");
        assert!(!again, "the other fourteen are new");
    }

    #[test]
    fn what_was_judged_today_does_not_come_again_before_all_others() {
        let subjects = subjects();
        let mut progress = Progress::default();
        for at in 0..16 {
            let now = day(0) + time::Duration::minutes(at);
            let next = ten(&subjects, &progress, now)[0];
            let (answer, says) = (&*next.subject.name, &*next.sentence.says);
            let known = progress.judged.iter().any(|it| it.answer == answer && it.says == says);
            assert!(!known, "{says} of {answer} comes again after {at} sentences");
            progress.judged.push(said(answer, says, at % 2 == 0, now));
        }
    }

    #[test]
    fn a_day_ends_at_the_readers_midnight() {
        let new_york =
            |hour| day(0).to_offset(time::macros::offset!(-5)).replace_hour(hour).unwrap();
        let judged = vec![said("c", "Addition is quick", false, new_york(18))];
        let progress = Progress { judged, ..Progress::default() };
        // In UTC that is the next day.
        assert_eq!(done_today(&progress, new_york(23)), 1);
        assert_eq!(done_today(&progress, new_york(23) + time::Duration::hours(2)), 0);
    }

    #[test]
    fn a_reader_sees_how_far_they_are() {
        let subjects = subjects();
        let judged = vec![
            said("c", "Addition is quick", false, day(0)),
            said("c", "Addition is quick", true, day(1)),
            said("b", "Addition is quick", false, day(1)),
            said("gone", "Gone", true, day(1)),
        ];
        let progress = Progress { judged, ..Progress::default() };
        let score = score(&subjects, &progress, day(2));
        assert_eq!((score.all, score.judged, score.right), (16, 2, 1));
        assert!(score.due >= 1);
        assert_eq!(done_today(&progress, day(1)), 3);
    }
}
