//! Where is everything? A page that names each experiment with its claim, each exercise and each verdict, so that the
//! book's search finds them: the chapters show experiments only when they are served.

use std::fmt::Write;

use interview::subject::Subject;
use lab::Answer;
use practice::exercise::Exercise;

/// The page.
pub fn page(answers: &[Answer], subjects: &[Subject], exercises: &[Exercise]) -> String {
    let mut page = "# Everything at a glance\n\nAll experiments with their claims, all exercises, and all sentences \
                    that the [quiz](quiz.md) asks about.\n"
        .to_owned();
    for answer in answers {
        let name = answer.name;
        let subject = subjects.iter().find(|it| it.name == name);
        let title = subject.map_or(answer.question, |it| &it.chapter.title);
        let _ = write!(page, "\n## {title}\n\n");
        for experiment in &answer.experiments {
            let (of, claim) = (experiment.name, text(experiment.claim));
            let _ = writeln!(page, "- Experiment [`{of}`]({name}.md#{name}-{of}): {claim}.");
        }
        for exercise in exercises.iter().filter(|it| it.key.answer == name) {
            let (title, level) = (text(&exercise.front.title), &exercise.front.level);
            let _ = writeln!(
                page,
                "- Exercise [`{}`]({name}.md#extend-it): {title} ({level}).",
                exercise.key.name
            );
        }
        for sentence in subject.iter().flat_map(|it| &it.chapter.sentences) {
            let says = text(&sentence.says);
            let _ = writeln!(page, "- Verdict: [“{says}”]({name}.md#the-textbook-answer-checked)");
        }
    }
    page
}

/// A text that is no Markdown, as Markdown.
fn text(plain: &str) -> String {
    let mut text = String::new();
    for letter in plain.chars() {
        if "\\*_[]<>#".contains(letter) {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_exercise_and_verdict_is_named() {
        let answers = crate::answers();
        let subjects = Subject::all(&interview::workspace()).unwrap();
        let exercises = Exercise::all(&interview::workspace()).unwrap();
        let page = page(&answers, &subjects, &exercises);
        let count = |words: &str| page.matches(words).count();
        let experiments: usize = answers.iter().map(|it| it.experiments.len()).sum();
        let verdicts: usize = subjects.iter().map(|it| it.chapter.sentences.len()).sum();
        assert_eq!(count("\n- Experiment "), experiments);
        assert_eq!(count("\n- Exercise "), exercises.len());
        assert_eq!(count("\n- Verdict: "), verdicts);
    }
}
