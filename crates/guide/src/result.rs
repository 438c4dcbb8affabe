//! What came of an experiment? Ours, which was recorded, and the reader's own, side by side.

use std::{fs, path::Path, time::SystemTime};

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
    record::{Measured, Recorded},
    render::{self, Verdict, verdict_in_words},
};

/// The results of one answer's experiments.
#[derive(Debug)]
pub struct Results {
    answer: &'static str,
    /// The hash of its code now; a result of other code is marked.
    code: Option<String>,
    /// What we have recorded.
    ours: Measured,
    /// What the whiteboard version fails, if the chapter says it.
    whiteboard: Mistakes,
    mode: Mode,
}

/// A result of the reader's.
#[derive(Debug)]
pub struct Yours {
    /// What came of it.
    pub report: Report,
    /// When.
    pub at: OffsetDateTime,
    /// Whether the code is still the same.
    pub of_this_code: bool,
}

impl Results {
    /// As they are now.
    pub fn of(answer: &Answer, mode: Mode) -> Self {
        let code = Code::of(Path::new(answer.folder)).ok().map(|code| code.hash);
        // One that cannot be read is a problem of the book, which names it.
        let ours = Measured::read(&Measured::path(answer)).unwrap_or_default();
        let chapter = fs::read_to_string(Path::new(answer.folder).join("chapter.md"));
        let chapter = chapter.unwrap_or_default();
        // One without the table is a problem of the book, which names it.
        let whiteboard = Mistakes::read(answer, &chapter).unwrap_or_default();
        Self { answer: answer.name, code, ours, whiteboard, mode }
    }

    /// Whether the chapter names this experiment among those that the whiteboard version fails.
    pub fn is_failed_by_the_whiteboard(&self, experiment: &str) -> bool {
        self.whiteboard.experiments.contains(experiment)
    }

    /// The reader's last one. Written down for others, the book holds ours only.
    pub fn yours(&self, experiment: &str) -> Option<Yours> {
        if self.mode == Mode::Static {
            return None;
        }
        results::load(self.answer, experiment).map(|kept| self.as_yours(kept))
    }

    fn as_yours(&self, Kept { report, at, code }: Kept) -> Yours {
        Yours { report, at: at.into(), of_this_code: code.is_some() && code == self.code }
    }

    /// Ours.
    pub fn ours(&self, experiment: &str) -> Option<&Recorded> {
        self.ours.of(experiment)
    }

    /// Both, as they are shown.
    pub fn html(&self, experiment: &str) -> String {
        match (self.ours(experiment), self.yours(experiment)) {
            (None, None) => "<p class=\"made-on\">Not run yet.</p>".to_owned(),
            (Some(ours), None) => ours_alone(ours),
            (ours, Some(yours)) => beside(ours, &yours),
        }
    }
}

fn ours_alone(ours: &Recorded) -> String {
    format!(
        "<div class=\"ours\"><p class=\"verdict {}\"><strong>Ours: {}</strong></p>{}{}</div>",
        Verdict::of(&ours.report).class(),
        escaped(&verdict_in_words(&ours.report)),
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

/// What is shown when a run has ended. `code` is what its program was built from.
pub fn of_this_run(answer: &Answer, report: &Report, code: Option<&str>) -> String {
    let results = Results::of(answer, Mode::Live);
    let yours =
        Kept { report: report.clone(), at: SystemTime::now(), code: code.map(str::to_owned) };
    beside(results.ours(&report.experiment), &results.as_yours(yours))
}

/// Verdict and figures, those that only one of the two has as well.
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
        format!("<td class=\"{}\">{}</td>", Verdict::of(report).class(), verdict_in_words(report))
    };
    format!(
        "<div class=\"table-wrapper\"><table class=\"beside\"><thead><tr><th></th><th>Ours</th><th>Yours</th></tr>\
         </thead><tbody><tr class=\"verdicts\"><td>Verdict</td>{}{}</tr>{rows}</tbody></table></div>",
        verdict(ours),
        verdict(report),
    )
}

/// `1.2 k requests/s (1.1 k to 1.3 k), target ≥ 1000: met`
fn value(figure: &Figure) -> String {
    let Figure { value, unit, target, .. } = figure;
    let target = target.map_or_else(String::new, |target| render::target(target, *value));
    format!("{} {}{}{target}", number(*value), escaped(unit), render::spread(figure))
}
