//! How does a report look in a terminal? Tables, sparklines, and a verdict at the end.

use std::{fmt::Write, io::IsTerminal};

use comfy_table::{ContentArrangement, Table as Grid, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::number;
use crate::{
    Report,
    recorder::{Check, Event, Figure, Series},
};

/// The whole report as text.
pub fn show(report: &Report) -> String {
    let mut text = format!("\n{}\n", report.claim);
    for remark in &report.text {
        let _ = write!(text, "\n{remark}\n");
    }
    for table in &report.tables {
        let rows = std::iter::once(&table.columns).chain(&table.rows);
        let _ = write!(text, "\n{}\n{}\n", table.title, grid(rows.cloned().collect()));
    }
    for series in &report.series {
        let _ = write!(text, "\n{}", sparklines(series));
    }
    if !report.figures.is_empty() {
        let rows = report.figures.iter().map(figure).collect();
        let _ = write!(text, "\n{}\n", grid(rows));
    }
    text.push('\n');
    for check in &report.checks {
        let _ = writeln!(text, "{}", check_line(check));
    }
    // Some experiments need no server.
    let servers: String = report.servers.iter().map(|server| format!("{server}, ")).collect();
    if report.whiteboard {
        text.push_str("\nThe whiteboard version was tried.");
    }
    let _ = write!(text, "\n{servers}{:.1} s, {} build", report.seconds, report.build);
    if report.build == "debug" && report.figures.iter().any(|figure| figure.target.is_some()) {
        text.push_str(" (targets are for a release build)");
    }
    let _ = write!(text, "\n{}", verdict(report));
    text
}

fn grid(rows: Vec<Vec<String>>) -> Grid {
    let mut grid = Grid::new();
    grid.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    let mut rows = rows.into_iter();
    grid.set_header(rows.next().unwrap_or_default()).add_rows(rows);
    grid
}

fn figure(figure: &Figure) -> Vec<String> {
    let target = figure.target.map(|target| {
        let met = if target.met(figure.value) { "met" } else { "missed" };
        format!("target {target}: {met}")
    });
    let value = format!("{} {}", number(figure.value), figure.unit);
    vec![figure.name.clone(), value, target.unwrap_or_default()]
}

fn check_line(check: &Check) -> String {
    if check.held {
        return format!("{} {}: {}", colour("✓", "32"), check.check, check.seen);
    }
    let Check { check, expected, seen, .. } = check;
    format!("{} {check}\n    expected {expected}\n    seen     {seen}", colour("✗", "31"))
}

fn verdict(report: &Report) -> String {
    let held = report.checks.iter().filter(|check| check.held).count();
    let all = report.checks.len();
    match (&report.error, &report.skipped) {
        (Some(error), _) => colour(&format!("FAILED: {error}"), "31"),
        (_, Some(why)) => colour(&format!("SKIPPED: {why}"), "33"),
        _ if report.held() => colour(&format!("HELD: {held} of {all} checks"), "32"),
        _ if all == 0 => colour("NOTHING WAS CHECKED", "31"),
        _ => colour(&format!("REFUTED: {} of {all} checks failed", all - held), "31"),
    }
}

/// Whether `NO_COLOR` is set to something (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn colour(text: &str, code: &str) -> String {
    if std::io::stdout().is_terminal() && !no_color() {
        return format!("\x1b[{code}m{text}\x1b[0m");
    }
    text.to_owned()
}

/// One sparkline for each line of the chart, all on one scale.
fn sparklines(series: &Series) -> String {
    let values = || series.lines.iter().flat_map(|line| &line.points).map(|&(_, y)| y);
    let finite = || values().filter(|y| y.is_finite());
    let (low, high) = (finite().fold(f64::MAX, f64::min), finite().fold(f64::MIN, f64::max));
    let width = series.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{} ({} over {})\n", series.title, series.y, series.x);
    for line in &series.lines {
        let spark: String = line.points.iter().map(|&(_, y)| bar(y, low, high)).collect();
        let last = line.points.last().map_or(f64::NAN, |&(_, y)| y);
        let _ = writeln!(text, "  {:width$} {spark} {}", line.name, number(last));
    }
    text
}

fn bar(value: f64, low: f64, high: f64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if !value.is_finite() {
        return ' ';
    }
    let share = if high > low { (value - low) / (high - low) } else { 0.0 };
    // Between 0 and 7, since the share is between 0 and 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let step = (share * 7.0).round() as usize;
    BARS[step.min(7)]
}

/// What a run shows while it goes on: a bar on standard error, and each check as it comes.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// A bar that shows nothing yet, and never shows anything if standard error is not a terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Self { bar }
    }

    /// Shows what has just happened.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Progress { done, total, label } => {
                let template = match total {
                    0 => "{spinner} {elapsed} {msg}",
                    _ => "{bar:24} {pos}/{len} {elapsed} {msg}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    self.bar.set_style(style);
                }
                self.bar.set_length(*total);
                self.bar.set_position(*done);
                self.bar.set_message(label.clone());
            }
            Event::Check(check) => self.bar.println(check_line(check)),
            _ => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_terminal_shows_everything_that_was_recorded() {
        let text = show(&example());
        for part in [
            "Two and two are four",
            "A remark.",
            "A table",
            "Squares & <more> (n² over n)",
            "▁▄█ 9",
            "target ≥ 0.85: met",
            "✓ two and two: 4",
            "✗ two and two",
            "expected 4",
            "seen     5",
            "PostgreSQL 15.18, 1.5 s, debug build",
            "REFUTED: 1 of 2 checks failed",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn a_line_with_holes_or_without_points_is_drawn_as_far_as_it_goes() {
        let mut report = example();
        report.series[0].lines[0].points = vec![(1.0, f64::NAN), (2.0, 3.0), (3.0, f64::INFINITY)];
        assert!(show(&report).contains(" ▁ "));
        report.series[0].lines[0].points.clear();
        show(&report);
        report.series[0].lines.clear();
        show(&report);
    }
}
