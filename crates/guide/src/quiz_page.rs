//! How does the quiz of verdicts look on a page? One sentence and three buttons; then the verdict, what was recorded,
//! and the experiment.

use interview::{
    progress::Progress,
    quiz::{DAILY, done_today, score, ten},
    screen::{Say, Wants, judged, verdicts},
    subject::Subject,
};
use lab::report::escaped;
use time::OffsetDateTime;

use crate::{
    interview_page::{FOCUS, choices},
    speech,
};

/// A sentence that was just judged: the answer's name, and its place in the chapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The answer's name.
    pub answer: String,
    /// The number of the sentence, from 0.
    pub at: usize,
}

/// The page as it is now.
pub fn html(
    subjects: &[Subject],
    progress: &Progress,
    shown: Option<&Shown>,
    now: OffsetDateTime,
) -> String {
    let done = done_today(progress, now);
    let score = score(subjects, progress, now);
    let inner = match shown.and_then(|shown| verdict(subjects, progress, shown)) {
        Some(verdict) => verdict,
        None => next(subjects, progress, now),
    };
    let today = match done {
        done if done < DAILY => format!("{done} of today's {DAILY}"),
        done => format!("Today's {DAILY} are done ({done}). You can go on"),
    };
    format!(
        "<verdict-quiz>{inner}<p class=\"score\">{today}. In all, {} of {} sentences right the last time; \
         {} are due again.</p></verdict-quiz>",
        score.right, score.all, score.due
    )
}

fn next(subjects: &[Subject], progress: &Progress, now: OffsetDateTime) -> String {
    let questions = ten(subjects, progress, now);
    let Some(question) = questions.first() else {
        return "<p>There is no sentence to judge.</p>".to_owned();
    };
    let sentences = &question.subject.chapter.sentences;
    let at = sentences.iter().position(|it| it.says == question.sentence.says).unwrap_or_default();
    let Wants::Choice(items) = verdicts() else { return String::new() };
    format!(
        "<section class=\"step\" aria-labelledby=\"sentence\"><p class=\"of\">{}</p>\
         <h2 id=\"sentence\"{FOCUS}>Everybody says: “{}”</h2>\
         <form method=\"post\" action=\"quiz\"><input type=\"hidden\" name=\"answer\" value=\"{}\">\
         <input type=\"hidden\" name=\"at\" value=\"{at}\">{}</form></section>",
        escaped(&question.subject.chapter.title),
        escaped(&question.sentence.says),
        question.subject.name,
        choices(&items),
    )
}

fn verdict(subjects: &[Subject], progress: &Progress, shown: &Shown) -> Option<String> {
    let subject = subjects.iter().find(|it| it.name == shown.answer)?;
    let sentence = subject.chapter.sentences.get(shown.at)?;
    let same =
        |it: &&interview::progress::Judged| it.answer == subject.name && it.says == sentence.says;
    let is_right = progress.judged.iter().filter(same).max_by_key(|it| it.at)?.right;
    let class = if is_right { "held" } else { "failed" };
    let mut says = subject.verdict_shown(sentence);
    // It runs here, so nothing has to lead to it.
    let experiment = match says.pop() {
        Some(Say::Experiment { answer, name }) => {
            format!("<live-experiment answer=\"{answer}\" name=\"{name}\"></live-experiment>")
        }
        other => {
            says.extend(other);
            String::new()
        }
    };
    Some(format!(
        "<section class=\"step\" aria-labelledby=\"verdict\"><p class=\"of\">{}</p>\
         <h2 id=\"verdict\" class=\"judged {class}\"{FOCUS}>{}</h2>{}\
         <p><a class=\"go\" href=\"quiz.html\">The next sentence</a></p>{experiment}</section>",
        escaped(&subject.chapter.title),
        judged(is_right),
        speech::all(&says, &subject.name),
    ))
}
