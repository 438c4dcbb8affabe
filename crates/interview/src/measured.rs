//! What did we measure? The figures and checks of an experiment, as `measured.json` in the answer's folder has them.

use std::{fs, io, path::Path};

use anyhow::Context;
use serde::Deserialize;

/// The recorded results of one answer; only what an interview shows.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Measured {
    reports: Vec<Recorded>,
}

/// The recorded result of an experiment.
#[derive(Clone, Debug, Deserialize)]
pub struct Recorded {
    experiment: String,
    /// What was claimed.
    pub claim: String,
    figures: Vec<Figure>,
    checks: Vec<Check>,
}

/// A recorded figure.
#[derive(Clone, Debug, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Check {
    #[serde(rename = "check")]
    name: String,
    seen: String,
    held: bool,
}

impl Measured {
    /// Reads the record in an answer's folder. Without a file, nothing was measured.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("measured.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// The result of this experiment.
    pub fn of(&self, experiment: &str) -> Option<&Recorded> {
        self.reports.iter().find(|one| one.experiment == experiment)
    }

    /// The figure of `EXPERIMENT: FIGURE`. A check that saw a number is one too.
    pub fn figure(&self, of: &str) -> Option<Figure> {
        let (experiment, name) = of.split_once(": ")?;
        let recorded = self.of(experiment)?;
        let figure = recorded.figures.iter().find(|figure| figure.name == name).cloned();
        figure.or_else(|| recorded.checks.iter().find(|check| check.name == name)?.figure())
    }
}

impl Recorded {
    /// The figure that a text quotes, which a comment in the text names.
    pub fn quoted(&self, text: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| text.contains(&format!(": {} -->", figure.name)))
    }

    /// `sums that did not fit: 3 of 4; 1 of 1 checks held`. It prefers the figure that the text quotes.
    pub fn in_words(&self, text: &str) -> String {
        let figure = self.quoted(text).or(self.figures.first());
        let figure = figure.map(|figure| format!("{}: {}; ", figure.name, figure.in_words()));
        let held = self.checks.iter().filter(|check| check.held).count();
        format!("{}{held} of {} checks held", figure.unwrap_or_default(), self.checks.len())
    }
}

impl Check {
    /// The number that was seen, with its unit.
    fn figure(&self) -> Option<Figure> {
        let (value, unit) = number_seen(&self.seen)?;
        Some(Figure { name: self.name.clone(), value, unit: unit.to_owned() })
    }
}

impl Figure {
    /// The value with its unit.
    pub fn in_words(&self) -> String {
        format!("{} {}", rounded(self.value), self.unit).trim_end().to_owned()
    }
}

/// The number that a check saw, with its unit: `1,008 units`. Nothing if it saw something else.
pub fn number_seen(seen: &str) -> Option<(f64, &str)> {
    let (number, unit) = seen.split_once(' ').unwrap_or((seen, ""));
    Some((number.replace(',', "").parse().ok()?, unit))
}

/// A number with three digits that count: `0.0334`, `12.3`, `123,000`. What was counted has all of its digits.
pub fn rounded(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if value.fract() == 0.0 && value.abs() < 1e7 {
        return grouped(&value.to_string());
    }
    let digits = 2.0 - value.abs().log10().floor();
    let scale = 10_f64.powf(digits);
    let rounded = (value * scale).round() / scale;
    // A division by a power of ten that is not exact may leave a fraction.
    grouped(&if digits > 0.0 { rounded } else { rounded.round() }.to_string())
}

/// A number with a comma before each three digits of its whole part: `17,242`.
pub fn grouped(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let is_after_digit = grouped.ends_with(|it: char| it.is_ascii_digit());
        if is_after_digit && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_that_the_text_quotes_is_shown() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workspace/crates/sums");
        let measured = Measured::read(&folder).unwrap();
        let recorded = measured.of("overflow").unwrap();
        let quoted = "3 of 4<!-- overflow: sums that did not fit -->";
        assert_eq!(recorded.in_words(quoted), "sums that did not fit: 3 of 4; 1 of 1 checks held");
        assert_eq!(recorded.in_words(""), "seconds: 2 s; 1 of 1 checks held");
        assert!(measured.of("many").is_none());
    }

    #[test]
    fn a_number_has_three_digits() {
        for (value, words) in [
            (0.033_412, "0.0334"),
            (12.345, "12.3"),
            (123_456.0, "123,456"),
            (123_456.7, "123,000"),
            (38_262.095, "38,300"),
            (1_008.0, "1,008"),
            (999.7, "1,000"),
            (0.0, "0"),
            (-1.0, "-1"),
            (-100_000.0, "-100,000"),
        ] {
            assert_eq!(rounded(value), words);
        }
    }

    #[test]
    fn a_figure_is_found_by_its_experiment_and_its_name_and_so_is_a_check_that_saw_a_number() {
        let record = serde_json::json!({"reports": [{
            "experiment": "loss", "claim": "", "figures": [{"name": "share", "value": 2.5, "unit": "%"}],
            "checks": [
                {"check": "lost", "expected": "some", "seen": "1,008 units", "held": true},
                {"check": "books", "expected": "right", "seen": "right", "held": true},
            ],
        }]});
        let measured: Measured = serde_json::from_value(record).unwrap();
        let in_words = |of| measured.figure(of).map(|it| it.in_words());
        assert_eq!(in_words("loss: share").as_deref(), Some("2.5 %"));
        assert_eq!(in_words("loss: lost").as_deref(), Some("1,008 units"));
        for of in ["loss: books", "loss: shares", "gain: share", "share"] {
            assert_eq!(in_words(of), None, "{of}");
        }
    }
}
