//! How is an estimate computed? From given numbers, by a formula that the candidate can say aloud.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use exmex::{Express, FlatEx};
use serde::Deserialize;

use crate::said::{NoNumber, Said, size, written};

/// A right estimate is off by less: a day may have 100,000 seconds, and not only 86,400; but 4 levels are not 5.
const TOLERANCE: f64 = 1.25;

/// An estimate on the back of an envelope.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// What is estimated.
    pub of: String,
    /// How: `links_per_month * 12 * bytes_per_link / 10^9`.
    pub formula: String,
    /// The numbers in it, by name.
    #[serde(default)]
    pub given: BTreeMap<String, f64>,
    /// The result with its unit, in the words of the chapter's *Scale it*.
    pub says: String,
}

impl Estimate {
    /// The value of the formula. A name that is not given is an error, and so is a given number that is not used.
    pub fn value(&self) -> anyhow::Result<f64> {
        let formula: FlatEx<f64> =
            exmex::parse(&self.formula).map_err(|error| anyhow!("{}: {error}", self.formula))?;
        let names = formula.var_names();
        if let Some(unused) = self.given.keys().find(|name| !names.contains(name)) {
            return Err(anyhow!("{unused} is given, but {} does not use it", self.formula));
        }
        let values = names.iter().map(|name| {
            self.given.get(name).copied().with_context(|| format!("{name} is not given"))
        });
        let values = values.collect::<anyhow::Result<Vec<_>>>()?;
        formula.eval(&values).map_err(|error| anyhow!("{}: {error}", self.formula))
    }

    /// The unit of the result, as the chapter writes it: `GB`, `million a year`.
    pub fn unit(&self) -> &str {
        let number = self.says.trim_start_matches(|c: char| !c.is_ascii_digit());
        number.trim_start_matches(|c: char| c.is_ascii_digit() || ",.".contains(c)).trim()
    }

    /// By which factor the reader is off: 1 is exact, infinity is nonsense.
    pub fn off_by(&self, said: &str) -> Result<f64, NoNumber> {
        let said = Said::parse(said)?;
        // A test evaluates the formulas of all answers.
        let right = self.value().unwrap_or(f64::NAN);
        let unit = size(self.unit());
        let factor = |said: f64, right: f64| {
            let factor = (said / right).max(right / said);
            if factor >= 1.0 { factor } else { f64::INFINITY }
        };
        Ok(match (said.size, unit) {
            // Both say what they count.
            (Some(_), Some(unit)) => factor(said.value(), right * unit),
            // The reader says `0.86 million`, the chapter 860,000.
            (Some(_), None) => factor(said.value(), right),
            // The chapter says `315 million`; the reader writes 315, or all the zeros.
            (None, Some(unit)) => factor(said.number, right).min(factor(said.number, right * unit)),
            (None, None) => factor(said.number, right),
        })
    }

    /// Whether an estimate that is off by this factor counts as right. One that is no size at all does not.
    pub fn is_right(off_by: Option<f64>) -> bool {
        off_by.is_some_and(|off| off < TOLERANCE)
    }

    /// The formula with its numbers, and the result: `sums_per_second * 86400, with sums_per_second = 10: 864,000 sums`.
    pub fn shown(&self) -> String {
        let given = self.given.iter().map(|(name, value)| format!("{name} = {}", written(*value)));
        let given = given.collect::<Vec<_>>().join(", ");
        let with = if given.is_empty() { given } else { format!(", with {given}") };
        format!("`{}`{with}: {}", self.formula, self.says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(formula: &str) -> Estimate {
        Estimate {
            of: String::new(),
            formula: formula.to_owned(),
            given: BTreeMap::from([("a".to_owned(), 2.0), ("long_name".to_owned(), 3.0)]),
            says: String::new(),
        }
    }

    #[test]
    fn a_formula_has_its_numbers_by_name() {
        let value = estimate("long_name * (a + 1) / 10^2").value().unwrap();
        assert!((value - 0.09).abs() < 1e-9, "{value}");
    }

    /// An estimate whose value is this.
    fn of(value: f64, says: &str) -> Estimate {
        Estimate {
            of: String::new(),
            formula: "value".to_owned(),
            given: BTreeMap::from([("value".to_owned(), value)]),
            says: says.to_owned(),
        }
    }

    #[test]
    fn an_estimate_is_judged_by_the_factor_that_it_is_off() {
        for (value, says, said, factor) in [
            (864_000.0, "860,000 links a day", "864000", 1.0),
            (864_000.0, "860,000 links a day", "0.864 million", 1.0),
            (864_000.0, "860,000 links a day", "1728k", 2.0),
            (315.0, "315 million a year", "315", 1.0),
            (315.0, "315 million a year", "315 million", 1.0),
            (315.0, "315 million a year", "315,000,000", 1.0),
            (315.0, "315 million a year", "3.15 billion", 10.0),
            (60.0, "60 GB", "0.06 TB", 1.0),
            (60.0, "60 GB", "120", 2.0),
            (160.0, "160 ms", "80 ms", 2.0),
            (160.0, "160 ms", "0.16 s", 1.0),
            (160.0, "160 ms", "160", 1.0),
            (25_600.0, "25,600 MB", "12.8 GB", 2.0),
            (10.0, "10", "0", f64::INFINITY),
            (10.0, "10", "-10", f64::INFINITY),
        ] {
            let off = of(value, says).off_by(said).unwrap();
            assert!(
                (off - factor).abs() < 1e-9 || off.is_infinite() && factor.is_infinite(),
                "{said} for {says}: {off}"
            );
        }
        assert!(of(1.0, "1").off_by("some").is_err());
    }

    #[test]
    fn a_small_whole_number_has_to_be_exact() {
        let levels = of(4.0, "4 levels");
        for (said, is_right) in [("4", true), ("5", false), ("3", false)] {
            assert_eq!(Estimate::is_right(Some(levels.off_by(said).unwrap())), is_right, "{said}");
        }
    }

    #[test]
    fn the_formula_is_shown_with_its_numbers() {
        let shown = of(60.0, "60 GB").shown();
        assert_eq!(shown, "`value`, with value = 60: 60 GB");
        assert!(of(1e6, "a million").shown().contains("value = 1,000,000"));
    }

    #[test]
    fn a_name_too_many_or_too_few_is_an_error() {
        for (formula, problem) in [
            ("a * long_name * b", "b is not given"),
            ("a * 2", "does not use"),
            ("a +* 2", "a +* 2"),
        ] {
            let error = estimate(formula).value().unwrap_err().to_string();
            assert!(error.contains(problem), "{formula}: {error}");
        }
    }
}
