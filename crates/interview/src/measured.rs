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

impl Figure {
    /// The value with its unit.
    pub fn in_words(&self) -> String {
        format!("{} {}", rounded(self.value), self.unit).trim_end().to_owned()
    }
}

/// A number with three digits that count: `0.0334`, `12.3`, `120000`.
pub fn rounded(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = 2.0 - value.abs().log10().floor();
    let scale = 10_f64.powf(digits);
    format!("{}", (value * scale).round() / scale)
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
            (123_456.0, "123000"),
            (0.0, "0"),
            (-1.0, "-1"),
        ] {
            assert_eq!(rounded(value), words);
        }
    }
}
