//! What is on the first page? Every question, its answer, and the last results.

use lab::{Answer, report::escaped};

use crate::{
    mode::Mode,
    questions::{self, Level, QUESTIONS},
    render::Verdict,
    result::Results,
};

/// The eighteen questions by level, and other answers.
pub fn contents(answers: &[Answer], mode: Mode) -> String {
    let mut html = String::new();
    let mut number = 0;
    let mut numbered = |title, shows, answer| {
        number += 1;
        row(number, title, shows, answer, mode)
    };
    for level in Level::ALL {
        let rows = QUESTIONS.iter().filter(|question| question.level == level).map(|question| {
            let answer = answers.iter().find(|answer| answer.name == question.answer);
            numbered(question.title, question.shows, answer)
        });
        html += &table(level.name(), mode, &rows.collect::<String>());
    }
    let others = questions::others(answers);
    if !others.is_empty() {
        let rows = others.iter().map(|answer| numbered(answer.question, "", Some(answer)));
        html += &table("Other questions", mode, &rows.collect::<String>());
    }
    html
}

fn table(heading: &str, mode: Mode, rows: &str) -> String {
    format!(
        "<h2 id=\"{id}\">{heading}</h2><div class=\"table-wrapper\"><table class=\"contents\">\
         <thead><tr><th>#</th><th>Question</th><th>What you will see</th>\
         <th>{results}</th></tr></thead><tbody>{rows}</tbody></table></div>",
        id = heading.to_lowercase().replace(' ', "-"),
        results = if mode == Mode::Live { "Last results here" } else { "Recorded results" },
    )
}

fn row(number: usize, title: &str, shows: &str, answer: Option<&Answer>, mode: Mode) -> String {
    let (title, last) = match answer {
        Some(answer) => (
            format!("<a href=\"{}.html\">{}</a>", answer.name, escaped(title)),
            results_in_words(answer, mode),
        ),
        None => (escaped(title), "not written yet".to_owned()),
    };
    let class = if answer.is_some() { "written" } else { "unwritten" };
    format!(
        "<tr class=\"{class}\"><td>{number}</td><td>{title}</td><td>{}</td><td>{last}</td></tr>",
        escaped(shows)
    )
}

/// `6 held, 1 refuted, 1 not run`
fn results_in_words(answer: &Answer, mode: Mode) -> String {
    let results = Results::of(answer, mode);
    let (mut verdicts, mut before, mut none) = (Vec::new(), 0, 0);
    for experiment in &answer.experiments {
        match (mode, results.yours(experiment.name)) {
            (Mode::Live, Some(yours)) if yours.of_this_code => {
                verdicts.push(Verdict::of(&yours.report));
            }
            (Mode::Live, Some(_)) => before += 1,
            (Mode::Live, None) => none += 1,
            (Mode::Static, _) => match results.ours(experiment.name) {
                Some(ours) => verdicts.push(Verdict::of(&ours.report)),
                None => none += 1,
            },
        }
    }
    let count = |verdict| verdicts.iter().filter(|it| **it == verdict).count();
    let counts = [Verdict::Held, Verdict::Refuted, Verdict::BrokeOff, Verdict::Skipped]
        .map(|verdict| (count(verdict), verdict.word().to_lowercase()));
    let others = [(before, "before the code was changed"), (none, "not run")];
    let others = others.map(|(count, words)| (count, words.to_owned()));
    let words = counts.into_iter().chain(others).filter(|(count, _)| *count > 0);
    words.map(|(count, words)| format!("{count} {words}")).collect::<Vec<_>>().join(", ")
}
