//! What does a run record? Text, figures, tables, series and checks: the [`Report`].

use std::{
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::mpsc::UnboundedSender;

/// Everything that one run of an experiment recorded: what `--json` prints and the guide shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The answer's name.
    pub answer: String,
    /// The experiment's name.
    pub experiment: String,
    /// The sentence that was tried.
    pub claim: String,
    /// Whether the answer's whiteboard version was tried.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whiteboard: bool,
    /// The parameters of this run, as they would be written on the command line.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// `debug` or `release`: a debug build's timings are not to be quoted.
    pub build: String,
    /// The servers that took part, with their versions.
    pub servers: Vec<String>,
    /// How long the run took, in seconds.
    pub seconds: f64,
    /// Remarks, in the order in which they were made.
    pub text: Vec<String>,
    /// Single numbers.
    pub figures: Vec<Figure>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Charts.
    pub series: Vec<Series>,
    /// What was expected, and what was seen.
    pub checks: Vec<Check>,
    /// Why the experiment could not run here. A skipped run does not count as passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The error that ended the run early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report {
    /// Whether the claim held: it was tried, at least one check was made, and every check held.
    pub fn held(&self) -> bool {
        self.error.is_none()
            && self.skipped.is_none()
            && !self.checks.is_empty()
            && self.checks.iter().all(|check| check.held)
    }
}

/// One measured number. Timings are figures, not checks: a busy machine must not fail a test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    #[serde(deserialize_with = "number_or_null")]
    pub value: f64,
    /// Of what: `ms`, `requests/s`, or empty for a ratio.
    pub unit: String,
    /// The value that it should reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The spread over several runs, if `value` is their median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// The smallest and the greatest value of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    #[serde(deserialize_with = "number_or_null")]
    pub least: f64,
    /// The greatest.
    #[serde(deserialize_with = "number_or_null")]
    pub most: f64,
}

/// The value that a figure should reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At least this much.
    AtLeast(f64),
    /// At most this much.
    AtMost(f64),
}

impl Target {
    /// Whether `value` reaches the target.
    pub fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

/// A table: every row has as many cells as there are columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// What the table shows.
    pub title: String,
    /// The head of each column.
    pub columns: Vec<String>,
    /// The cells.
    pub rows: Vec<Vec<String>>,
}

/// A chart: lines over a common pair of axes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// What the chart shows, in words that also help a reader who cannot see it.
    pub title: String,
    /// The horizontal axis, with its unit.
    pub x: String,
    /// The vertical axis, with its unit.
    pub y: String,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line of a chart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, x rising.
    #[serde(deserialize_with = "points_or_nulls")]
    pub points: Vec<(f64, f64)>,
}

/// JSON has no NaN or infinity, and `serde_json` writes null for them.
fn number_or_null<'de, D: Deserializer<'de>>(json: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(json)?.unwrap_or(f64::NAN))
}

fn points_or_nulls<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<(f64, f64)>, D::Error> {
    let points = Vec::<(Option<f64>, Option<f64>)>::deserialize(json)?;
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    Ok(points.into_iter().map(|(x, y)| (number(x), number(y))).collect())
}

/// One attempt to refute the claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// A sentence that could be false.
    pub check: String,
    /// What the claim predicts.
    pub expected: String,
    /// What was measured.
    pub seen: String,
    /// Whether the two agree.
    pub held: bool,
}

impl Check {
    fn new(check: impl Display, expected: impl Display, seen: impl Display, held: bool) -> Self {
        Self { check: check.to_string(), expected: words(expected), seen: words(seen), held }
    }
}

/// An empty text, such as a list of what is wrong, becomes a word: "expected , seen a" is no sentence.
fn words(value: impl Display) -> String {
    let text = value.to_string();
    if text.is_empty() { "nothing".to_owned() } else { text }
}

/// What a run reports while it goes on: to the terminal, or to another program as one JSON object per line
/// (`experiment NAME --events`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// How far the run is. A `total` of 0 means that the number of steps is unknown.
    Progress {
        /// Steps done.
        done: u64,
        /// Steps in all.
        total: u64,
        /// What is being done.
        label: String,
    },
    /// A remark.
    Text {
        /// The remark.
        text: String,
    },
    /// A number was measured.
    Figure(Figure),
    /// A table is complete.
    Table(Table),
    /// A chart has new points; it replaces the one of the same title.
    Series(Series),
    /// A check was made.
    Check(Check),
    /// The run is over; the last line of `--events`.
    Report(Box<Report>),
}

/// Records a run. Clones write to the same report.
#[derive(Clone, Debug)]
pub struct Recorder {
    report: Arc<Mutex<Report>>,
    events: UnboundedSender<Event>,
    started: Instant,
}

impl Recorder {
    pub(crate) fn new(report: Report, events: UnboundedSender<Event>) -> Self {
        Self { report: Arc::new(Mutex::new(report)), events, started: Instant::now() }
    }

    /// The report so far.
    pub fn report(&self) -> Report {
        let mut report = self.lock().clone();
        report.seconds = self.started.elapsed().as_secs_f64();
        report
    }

    /// Adds a remark.
    pub fn text(&self, text: impl Display) {
        let text = text.to_string();
        self.lock().text.push(text.clone());
        self.send(Event::Text { text });
    }

    /// Adds a number.
    pub fn figure(&self, name: impl Display, value: f64, unit: &str) {
        self.add_figure(name, value, unit, None);
    }

    /// Adds a number that should reach a target; the report says whether it did.
    pub fn figure_with_target(&self, name: impl Display, value: f64, unit: &str, target: Target) {
        self.add_figure(name, value, unit, Some(target));
    }

    fn add_figure(&self, name: impl Display, value: f64, unit: &str, target: Option<Target>) {
        let (name, unit) = (name.to_string(), unit.to_owned());
        let figure = Figure { name, value, unit, target, spread: None };
        self.lock().figures.push(figure.clone());
        self.send(Event::Figure(figure));
    }

    /// Adds a table.
    pub fn table(&self, title: impl Display, columns: &[&str], rows: Vec<Vec<String>>) {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        let table = Table { title: title.to_string(), columns, rows };
        self.lock().tables.push(table.clone());
        self.send(Event::Table(table));
    }

    /// Adds a point to a line of the chart `title`, which is made when it is first named.
    pub fn point(&self, title: &str, axes: (&str, &str), line: &str, point: (f64, f64)) {
        let mut report = self.lock();
        let index = report.series.iter().position(|series| series.title == title);
        let index = index.unwrap_or_else(|| {
            let (x, y) = (axes.0.to_owned(), axes.1.to_owned());
            report.series.push(Series { title: title.to_owned(), x, y, lines: Vec::new() });
            report.series.len() - 1
        });
        let series = &mut report.series[index];
        match series.lines.iter_mut().find(|known| known.name == line) {
            Some(known) => known.points.push(point),
            None => series.lines.push(Line { name: line.to_owned(), points: vec![point] }),
        }
        let series = series.clone();
        drop(report);
        self.send(Event::Series(series));
    }

    /// Records a check. `held` must follow from what was measured.
    pub fn check(
        &self,
        check: impl Display,
        expected: impl Display,
        seen: impl Display,
        held: bool,
    ) {
        let check = Check::new(check, expected, seen, held);
        self.lock().checks.push(check.clone());
        self.send(Event::Check(check));
    }

    /// Checks that what was seen is what was expected.
    pub fn check_eq<T: PartialEq + Display>(&self, check: impl Display, expected: T, seen: T) {
        let held = expected == seen;
        self.check(check, expected, seen, held);
    }

    /// Reports how far the run is.
    pub fn progress(&self, done: u64, total: u64, label: impl Display) {
        self.send(Event::Progress { done, total, label: label.to_string() });
    }

    pub(crate) fn server(&self, server: String) {
        self.took_part(server);
    }

    /// Names a program that takes part beside the servers, with its version.
    pub fn took_part(&self, server: String) {
        let mut report = self.lock();
        if !report.servers.contains(&server) {
            report.servers.push(server);
        }
    }

    pub(crate) fn end(&self, error: Option<String>, skipped: Option<String>) {
        let mut report = self.lock();
        report.error = error;
        report.skipped = skipped;
    }

    /// If the receiver has gone, the event is dropped: nobody would read it.
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// A panic while recording leaves a report that is still valid, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_over_what_is_no_number_can_be_read_again() {
        let spread = Spread { least: f64::INFINITY, most: f64::NEG_INFINITY };
        let json = serde_json::to_string(&spread).unwrap();
        let back: Spread = serde_json::from_str(&json).unwrap();
        assert!(back.least.is_nan() && back.most.is_nan(), "{json}");
    }

    #[test]
    fn an_empty_text_of_a_check_becomes_a_word() {
        let check = Check::new("fields that nobody may see", "", ["a", "b"].join(", "), false);
        assert_eq!((check.expected.as_str(), check.seen.as_str()), ("nothing", "a, b"));
        assert_eq!(Check::new("fields that nobody may see", "", "", true).seen, "nothing");
    }
}
