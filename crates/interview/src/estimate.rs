//! How is an estimate computed? From given numbers, by a formula that the candidate can say aloud.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use exmex::{Express, FlatEx};
use serde::Deserialize;

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
