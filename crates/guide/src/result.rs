//! How is the result of an experiment shown? Our recorded result and the reader's own, side by side.

use std::{cell::OnceCell, fs, path::Path, time::SystemTime};

use lab::{
    Answer, Report,
    code::Code,
    mistakes::Mistakes,
    recorder::Figure,
    report::{escaped, number},
    results::{self, Kept},
};
use time::OffsetDateTime;

use crate::{
    mode::Mode,
    prediction::Quotes,
    record::{Measured, Recorded},
    render::{self, Verdict, verdict_in_words},
};

/// The results of one answer's experiments. What a page does not ask for is not read: the first page has all answers.
#[derive(Debug)]
pub struct Results<'a> {
    answer: &'a Answer,
    mode: Mode,
    code: OnceCell<Option<String>>,
    ours: OnceCell<Measured>,
    whiteboard: OnceCell<Mistakes>,
    quotes: OnceCell<Quotes>,
}

/// A result of the reader's.
#[derive(Debug)]
pub struct Yours {
    /// The report of the run.
    pub report: Report,
    /// When it was kept.
    pub at: OffsetDateTime,
    /// Whether the code is still the same.
    pub of_this_code: bool,
}

impl<'a> Results<'a> {
    /// The current results.
    pub fn of(answer: &'a Answer, mode: Mode) -> Self {
        let (code, ours, whiteboard, quotes) = Default::default();
        Self { answer, mode, code, ours, whiteboard, quotes }
    }

    /// The hash of its current code. A result of other code is marked.
    fn code(&self) -> Option<&str> {
        let code = || Code::of(Path::new(self.answer.folder)).ok().map(|code| code.hash);
        self.code.get_or_init(code).as_deref()
    }

    /// What we have recorded. If it cannot be read, the book reports the problem.
    fn measured(&self) -> &Measured {
        let read = || Measured::read(&Measured::path(self.answer)).unwrap_or_default();
        self.ours.get_or_init(read)
    }

    /// What the chapter says about the experiments.
    pub fn quotes(&self) -> &Quotes {
        self.quotes.get_or_init(|| Quotes::of(self.answer))
    }

    /// Whether the chapter names this experiment among those that the whiteboard version fails.
    pub fn is_failed_by_the_whiteboard(&self, experiment: &str) -> bool {
        let read = || {
            let chapter = fs::read_to_string(Path::new(self.answer.folder).join("chapter.md"));
            // If the table cannot be read, a test of the answer fails.
            Mistakes::read(self.answer, &chapter.unwrap_or_default()).unwrap_or_default()
        };
        self.whiteboard.get_or_init(read).experiments.contains(experiment)
    }

    /// The reader's last result. A static book shows only our results.
    pub fn yours(&self, experiment: &str) -> Option<Yours> {
        if self.mode == Mode::Static {
            return None;
        }
        results::load(self.answer.name, experiment).map(|kept| self.as_yours(kept))
    }

    fn as_yours(&self, Kept { report, at, code }: Kept) -> Yours {
        let of_this_code = code.is_some() && code.as_deref() == self.code();
        Yours { report, at: at.into(), of_this_code }
    }

    /// Our recorded result.
    pub fn ours(&self, experiment: &str) -> Option<&Recorded> {
        self.measured().of(experiment)
    }

    /// Both results as HTML.
    pub fn html(&self, experiment: &str) -> String {
        match (self.ours(experiment), self.yours(experiment)) {
            (None, None) => "<p class=\"made-on\">Not run yet.</p>".to_owned(),
            // A reader who sees our result can predict nothing.
            (Some(ours), None) if self.mode == Mode::Live => format!(
                "<details class=\"spoiler\"><summary>Our result: predict yours first</summary>{}</details>",
                ours_alone(ours)
            ),
            (Some(ours), None) => ours_alone(ours),
            (ours, Some(yours)) => beside(ours, &yours),
        }
    }
}

fn ours_alone(ours: &Recorded) -> String {
    format!(
        "<div class=\"ours\"><p class=\"verdict {}\"><strong>Ours: {}</strong>{}</p>{}{}</div>",
        Verdict::of(&ours.report).class(),
        escaped(&verdict_in_words(&ours.report)),
        render::targets(&ours.report),
        made_on(ours),
        render::figures(&ours.report.figures),
    )
}

fn made_on(ours: &Recorded) -> String {
    render::made_on(&ours.on(), &ours.report)
}

fn beside(ours: Option<&Recorded>, yours: &Yours) -> String {
    let Yours { report, at, of_this_code } = yours;
    let figures = match ours {
        None => render::figures(&report.figures),
        Some(ours) => {
            let made_on = format!("<p class=\"made-on\">Ours:</p>{}", made_on(ours));
            table(&ours.report, yours) + &made_on
        }
    };
    let html = render::head(report, *at, *of_this_code) + &render::body(report, &figures);
    if *of_this_code { html } else { format!("<div class=\"before\">{html}</div>") }
}

/// The HTML that is shown when a run has ended. `code` is the hash of the code that its program was built from.
pub fn of_this_run(answer: &Answer, report: &Report, code: Option<&str>) -> String {
    let results = Results::of(answer, Mode::Live);
    let yours =
        Kept { report: report.clone(), at: SystemTime::now(), code: code.map(str::to_owned) };
    beside(results.ours(&report.experiment), &results.as_yours(yours))
}

/// A table of both results: how the runs differ, the verdicts, and all figures, even if only one of the two has them.
fn table(ours: &Report, yours: &Yours) -> String {
    let report = &yours.report;
    let mut names: Vec<&str> = Vec::new();
    for figure in ours.figures.iter().chain(&report.figures) {
        if !names.contains(&&*figure.name) {
            names.push(&figure.name);
        }
    }
    let rows: String = names
        .iter()
        .map(|name| {
            let find = |report: &Report| {
                let figure = report.figures.iter().find(|figure| figure.name == *name);
                figure.map_or_else(|| "–".to_owned(), value)
            };
            format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(name),
                find(ours),
                find(report)
            )
        })
        .collect();
    let verdict = |report: &Report| {
        format!(
            "<td class=\"{}\">{}{}</td>",
            Verdict::of(report).class(),
            escaped(&verdict_in_words(report)),
            render::targets(report)
        )
    };
    let (of_ours, of_yours) = (only_in(ours, report), only_in(report, ours));
    let differ = if of_ours == of_yours {
        String::new()
    } else {
        format!(
            "<tr class=\"differ\"><td>Not the same run</td><td>{}</td><td>{}</td></tr>",
            escaped(&of_ours),
            escaped(&of_yours)
        )
    };
    format!(
        "<div class=\"table-wrapper\"><table class=\"beside\"><thead><tr><th>Of</th><th>Ours</th><th>Yours</th></tr>\
         </thead><tbody>{differ}<tr class=\"verdicts\"><td>Verdict</td>{}{}</tr>{rows}</tbody></table></div>",
        verdict(ours),
        verdict(report),
    )
}

/// The parameters, the build and the version of a run that differ from the other run's: `seconds 1 · debug build`. If
/// there are any, compare the figures with care.
fn only_in(one: &Report, other: &Report) -> String {
    let made = |report: &Report| {
        let version = if report.whiteboard { "the whiteboard version" } else { "the answer" };
        let rest = [format!("{} build", report.build), version.to_owned()];
        render::params(report).chain(rest).collect::<Vec<_>>()
    };
    let other = made(other);
    made(one).into_iter().filter(|it| !other.contains(it)).collect::<Vec<_>>().join(" · ")
}

/// `1.2 k requests/s (1.1 k to 1.3 k), target ≥ 1000: met`
fn value(figure: &Figure) -> String {
    let Figure { value, unit, target, .. } = figure;
    let target = target.map_or_else(String::new, |target| render::target(target, *value));
    format!("{} {}{}{target}", number(*value), escaped(unit), render::spread(figure))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(params: &Value, build: &str) -> Report {
        serde_json::from_value(json!({
            "answer": "sums", "experiment": "two", "claim": "", "params": params, "build": build,
            "servers": [], "seconds": 1.0, "text": [], "tables": [], "series": [],
            "figures": [{"name": "speed", "value": 9, "unit": "/s", "target": lab::Target::AtLeast(10.0)}],
            "checks": [{"check": "sum", "expected": "4", "seen": "4", "held": true}],
        }))
        .unwrap()
    }

    fn beside_ours(ours: &Report, report: Report) -> String {
        table(ours, &Yours { report, at: OffsetDateTime::UNIX_EPOCH, of_this_code: true })
    }

    #[test]
    fn two_runs_that_were_made_differently_say_in_what() {
        let ours = run(&json!({"clients": 50, "seconds": "5"}), "release");
        let html = beside_ours(&ours, run(&json!({"clients": 50, "seconds": "1"}), "debug"));
        let row = "<td>Not the same run</td><td>seconds 5 · release build</td><td>seconds 1 · debug build</td>";
        assert!(html.contains(row), "{html}");

        let whiteboard = Report { whiteboard: true, ..ours.clone() };
        let html = beside_ours(&ours, whiteboard);
        assert!(html.contains("<td>the answer</td><td>the whiteboard version</td>"), "{html}");

        let html = beside_ours(&ours, ours.clone());
        assert!(!html.contains("Not the same run"), "{html}");
    }

    #[test]
    fn both_verdicts_say_which_targets_were_missed() {
        let ours = run(&json!({}), "release");
        let html = beside_ours(&ours, ours.clone());
        assert_eq!(html.matches("0 of 1 targets reached").count(), 2, "{html}");
        assert_eq!(html.matches("target ≥ 10: missed").count(), 2, "{html}");
    }

    #[test]
    fn what_a_run_says_is_escaped_in_the_table() {
        let ours = run(&json!({}), "release");
        let html = beside_ours(&ours, Report { error: Some("<b>".to_owned()), ..ours.clone() });
        assert!(html.contains("Broke off, &lt;b&gt;"), "{html}");
    }
}
