//! How does a result look on a page? It arrives in pieces while the experiment runs, and the final result has the same
//! pieces.

use lab::{
    Report, Target,
    recorder::{Check, Event, Figure, Series, Spread, Table},
    report::{escaped, number, svg},
};
use serde::Serialize;
use time::{OffsetDateTime, macros::format_description};

/// A piece of a result, and where it goes.
#[derive(Clone, Debug, Serialize)]
pub struct Piece {
    /// The slot that it is added to.
    pub slot: &'static str,
    /// A piece replaces the one with its key in the slot.
    pub key: Option<String>,
    /// What is shown.
    pub html: String,
}

/// The slots, in the order in which they are shown.
const SLOTS: [&str; 5] = ["checks", "figures", "series", "tables", "text"];

/// The piece that an event brings; progress brings none.
pub fn piece(event: &Event) -> Option<Piece> {
    let piece = |slot, html| Some(Piece { slot, key: None, html });
    match event {
        Event::Progress { .. } | Event::Report(_) => None,
        Event::Text { text } => piece("text", format!("<p>{}</p>", escaped(text))),
        Event::Figure(figure) => piece("figures", self::figure(figure)),
        Event::Table(table) => piece("tables", self::table(table)),
        Event::Check(check) => piece("checks", self::check(check)),
        Event::Series(series) => Some(Piece {
            slot: "series",
            key: Some(series.title.clone()),
            html: self::series(series),
        }),
    }
}

/// Empty slots, to be filled while an experiment runs.
pub fn slots() -> String {
    let slot = |slot| format!("<div class=\"slot\" data-slot=\"{slot}\"></div>");
    SLOTS.map(slot).concat()
}

/// The verdict in a word, and how the run was made. If the code was changed since, it says so.
pub fn head(report: &Report, at: OffsetDateTime, of_this_code: bool) -> String {
    let (class, before) = match (Verdict::of(report).class(), of_this_code) {
        (class, true) => (class, ""),
        ("failed", false) => ("failed", BEFORE),
        (_, false) => ("before", BEFORE),
    };
    format!(
        "<p class=\"verdict {class}\"><strong>{}</strong> {}{}</p>{before}{}",
        Verdict::of(report).word(),
        escaped(&verdict_reason(report)),
        targets(report),
        made_on(&day_and_time(at), report),
    )
}

const BEFORE: &str = "<p class=\"changed\">Made before the code was changed. Run it again.</p>";

/// When, in which build, on which servers, with which parameters.
pub fn made_on(at: &str, report: &Report) -> String {
    let mut on =
        vec![at.to_owned(), format!("{:.1} s", report.seconds), format!("{} build", report.build)];
    if report.whiteboard {
        on.insert(0, "the whiteboard version".to_owned());
    }
    on.extend(report.servers.iter().cloned());
    on.extend(params(report));
    format!("<p class=\"made-on\">{}</p>", escaped(&on.join(" · ")))
}

/// The parameters of a run, each with its name.
pub fn params(report: &Report) -> impl Iterator<Item = String> {
    report.params.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name} {value}")
    })
}

/// The rest of a report. The figures are given as HTML.
pub fn body(report: &Report, figures: &str) -> String {
    let mut html = format!("<ul class=\"checks\">{}</ul>{figures}", all(&report.checks, check));
    html += &all(&report.series, series);
    html += &all(&report.tables, table);
    html + &all(&report.text, |text| format!("<p>{}</p>", escaped(text)))
}

/// Figures, each with its target.
pub fn figures(figures: &[Figure]) -> String {
    format!("<div class=\"figures\">{}</div>", all(figures, figure))
}

fn all<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    items.iter().map(show).collect()
}

/// `Held, 4 of 4 checks`
pub fn verdict_in_words(report: &Report) -> String {
    format!("{}, {}", Verdict::of(report).word(), verdict_reason(report))
}

fn verdict_reason(report: &Report) -> String {
    match (&report.error, &report.skipped) {
        (Some(error), _) => error.clone(),
        (_, Some(why)) => why.clone(),
        _ => {
            let held = report.checks.iter().filter(|check| check.held).count();
            format!("{held} of {} checks", report.checks.len())
        }
    }
}

/// How many figures reached their target, shown behind the verdict. A target is not a check and does not decide the
/// verdict.
pub fn targets(report: &Report) -> String {
    let reached = |figure: &Figure| Some(figure.target?.met(figure.value));
    let reached: Vec<bool> = report.figures.iter().filter_map(reached).collect();
    let (count, all) = (reached.iter().filter(|it| **it).count(), reached.len());
    if all == 0 {
        return String::new();
    }
    let class = if count < all { "missed" } else { "held" };
    let of_debug = count < all && report.build == "debug";
    let debug = if of_debug { ", which are for a release build" } else { "" };
    format!("; <span class=\"target {class}\">{count} of {all} targets reached{debug}</span>")
}

/// The result of a run in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check held.
    Held,
    /// A check failed: the claim is false here.
    Refuted,
    /// It could not be tried here.
    Skipped,
    /// It ended with an error.
    BrokeOff,
}

impl Verdict {
    /// The verdict of this report.
    pub fn of(report: &Report) -> Self {
        match report {
            Report { error: Some(_), .. } => Self::BrokeOff,
            Report { skipped: Some(_), .. } => Self::Skipped,
            report if report.held() => Self::Held,
            _ => Self::Refuted,
        }
    }

    /// How it is coloured.
    pub fn class(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Refuted | Self::BrokeOff => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "Held",
            Self::Refuted => "Refuted",
            Self::Skipped => "Skipped",
            Self::BrokeOff => "Broke off",
        }
    }
}

fn check(check: &Check) -> String {
    let (class, word) = if check.held { ("held", "held") } else { ("failed", "failed") };
    format!(
        "<li class=\"{class}\"><span class=\"word\">{word}</span> {} \
         <span class=\"seen\">expected {}, seen {}</span></li>",
        escaped(&check.check),
        escaped(&check.expected),
        escaped(&check.seen),
    )
}

fn figure(figure: &Figure) -> String {
    let target = figure.target.map_or_else(String::new, |it| target(it, figure.value));
    format!(
        "<div class=\"figure\"><span class=\"value\">{} {}</span>{} <span>{}</span>{target}</div>",
        number(figure.value),
        escaped(&figure.unit),
        spread(figure),
        escaped(&figure.name),
    )
}

/// The spread of several runs, if `value` is their median.
pub fn spread(figure: &Figure) -> String {
    figure.spread.map_or_else(String::new, |Spread { least, most }| {
        format!(" <span class=\"spread\">({} to {})</span>", number(least), number(most))
    })
}

/// Whether a value reaches its target.
pub fn target(target: Target, value: f64) -> String {
    let (class, word) = if target.met(value) { ("held", "met") } else { ("missed", "missed") };
    format!(" <span class=\"target {class}\">target {target}: {word}</span>")
}

fn table(table: &Table) -> String {
    let cells = |cells: &[String], tag: &str| {
        all(cells, |cell| format!("<{tag}>{}</{tag}>", escaped(cell)))
    };
    format!(
        "<div class=\"table-wrapper\"><table><caption>{}</caption>\
         <thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>",
        escaped(&table.title),
        cells(&table.columns, "th"),
        all(&table.rows, |row| format!("<tr>{}</tr>", cells(row, "td"))),
    )
}

fn series(series: &Series) -> String {
    format!(
        "<figure>{}<figcaption>{}</figcaption></figure>",
        svg::chart(series),
        escaped(&series.title)
    )
}

/// `2026-11-24 15:31 UTC`
pub fn day_and_time(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    at.format(format).unwrap_or_else(|_| at.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A run whose checks held, with a figure for each value. Their target is at least 10.
    fn run(values: &[f64], build: &str) -> Report {
        let figures = values.iter().map(|value| {
            json!({"name": format!("speed {value}"), "value": value, "unit": "/s", "target": Target::AtLeast(10.0)})
        });
        let figures: Vec<_> =
            figures.chain([json!({"name": "size", "value": 1, "unit": ""})]).collect();
        serde_json::from_value(json!({
            "answer": "sums", "experiment": "two", "claim": "", "params": {"rounds": 5},
            "build": build, "servers": [], "seconds": 1.0, "text": [], "tables": [], "series": [],
            "figures": figures,
            "checks": [{"check": "sum", "expected": "4", "seen": "4", "held": true}],
        }))
        .unwrap()
    }

    #[test]
    fn a_verdict_says_how_many_figures_reached_their_target() {
        for (values, build, words) in [
            (
                &[11.0, 9.0, 12.0][..],
                "release",
                "held\"><strong>Held</strong> 1 of 1 checks; <span class=\"target missed\">2 of 3 targets reached</span></p>",
            ),
            (
                &[11.0, 12.0],
                "release",
                "<span class=\"target held\">2 of 2 targets reached</span></p>",
            ),
            (&[9.0], "release", "missed\">0 of 1 targets reached</span></p>"),
            (
                &[9.0],
                "debug",
                "missed\">0 of 1 targets reached, which are for a release build</span></p>",
            ),
            (&[11.0], "debug", "held\">1 of 1 targets reached</span></p>"),
            (&[], "release", "<strong>Held</strong> 1 of 1 checks</p>"),
        ] {
            let report = run(values, build);
            assert_eq!(Verdict::of(&report), Verdict::Held, "a target is no check");
            let head = head(&report, OffsetDateTime::UNIX_EPOCH, true);
            assert!(head.contains(words), "{words}: {head}");
        }
    }

    #[test]
    fn each_figure_that_missed_its_target_says_so() {
        let html = figures(&run(&[9.0, 11.0], "release").figures);
        assert_eq!(
            (html.matches(": missed").count(), html.matches(": met").count()),
            (1, 1),
            "{html}"
        );
    }
}
