//! Who reads a report? People in a terminal, people in the guide, and machines, which read its JSON.

pub mod svg;
pub mod terminal;

/// A number as people read it: `1.2 M`, `34.5 k`, `0.87`.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    match value {
        _ if !value.is_finite() => "–".to_owned(),
        _ if magnitude >= 1e9 => format!("{:.2} G", value / 1e9),
        _ if magnitude >= 1e6 => format!("{:.2} M", value / 1e6),
        _ if magnitude >= 1e4 => format!("{:.1} k", value / 1e3),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ if magnitude >= 100.0 => format!("{value:.0}"),
        _ if magnitude >= 10.0 => format!("{value:.1}"),
        _ if magnitude >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Escapes text for HTML and SVG, in attributes too.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use crate::{
        Report, Target,
        recorder::{Check, Event, Figure, Line, Series, Table},
    };

    /// A report with one of everything.
    pub fn example() -> Report {
        let check = |held| Check {
            check: "two and two".to_owned(),
            expected: "4".to_owned(),
            seen: if held { "4" } else { "5" }.to_owned(),
            held,
        };
        let points = vec![(1.0, 1.0), (2.0, 4.0), (3.0, 9.0)];
        Report {
            answer: "sums".to_owned(),
            experiment: "two".to_owned(),
            claim: "Two and two are four".to_owned(),
            whiteboard: false,
            params: serde_json::Map::new(),
            build: "debug".to_owned(),
            servers: vec!["PostgreSQL 15.18".to_owned()],
            seconds: 1.5,
            text: vec!["A remark.".to_owned()],
            figures: vec![Figure {
                name: "ratio".to_owned(),
                value: 0.9,
                unit: String::new(),
                target: Some(Target::AtLeast(0.85)),
                spread: None,
            }],
            tables: vec![Table {
                title: "A table".to_owned(),
                columns: vec!["n".to_owned()],
                rows: vec![vec!["1".to_owned()]],
            }],
            series: vec![Series {
                title: "Squares & <more>".to_owned(),
                x: "n".to_owned(),
                y: "n²".to_owned(),
                lines: vec![Line { name: "squares".to_owned(), points }],
            }],
            checks: vec![check(true), check(false)],
            skipped: None,
            error: None,
        }
    }

    #[test]
    fn a_report_is_the_same_after_a_journey_through_json() {
        let json = serde_json::to_value(example()).unwrap();
        let keys = [
            "answer",
            "experiment",
            "claim",
            "params",
            "build",
            "servers",
            "seconds",
            "figures",
            "tables",
            "series",
            "checks",
        ];
        for key in keys {
            assert!(json.get(key).is_some(), "{key} is missing");
        }
        assert_eq!(json["figures"][0]["target"]["at_least"], 0.85);
        assert!(json.get("skipped").is_none() && json.get("error").is_none());
        let back: Report = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(back).unwrap(), json);
    }

    #[test]
    fn what_is_no_number_does_not_make_a_report_unreadable() {
        let mut report = example();
        report.figures[0].value = f64::NAN;
        report.series[0].lines[0].points[0].1 = f64::INFINITY;
        let event = Event::Report(Box::new(report));
        let json = serde_json::to_string(&event).unwrap();
        let Ok(Event::Report(back)) = serde_json::from_str(&json) else { panic!("{json}") };
        assert!(back.figures[0].value.is_nan());
        assert!(back.series[0].lines[0].points[0].1.is_nan());
    }

    #[test]
    fn a_claim_holds_only_if_it_was_tried_and_every_check_held() {
        let mut report = example();
        assert!(!report.held(), "a check failed");
        report.checks.truncate(1);
        assert!(report.held());
        assert!(!Report { skipped: Some("no server".to_owned()), ..report.clone() }.held());
        assert!(!Report { error: Some("it broke".to_owned()), ..report.clone() }.held());
        assert!(!Report { checks: Vec::new(), ..report }.held(), "nothing was checked");
    }
}
