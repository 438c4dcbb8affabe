//! How is a number read as people write it? `860,000`, `0.9 million`, `1e6`, `10 * 86400`, `63 GB`.

use thiserror::Error;

/// A number that was said, with the unit's size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// The number as it was written.
    pub number: f64,
    /// What the word behind it multiplies it with, if there is such a word: a million, a GB.
    pub size: Option<f64>,
}

/// This is not a number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no number: write it as 860,000 or 0.86 million or 10 * 86400")]
pub struct NoNumber(String);

impl Said {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, NoNumber> {
        let no_number = || NoNumber(text.trim().to_owned());
        let text = text.trim().trim_start_matches(['~', '≈', '=', ' ']);
        let text = text.strip_prefix("about ").unwrap_or(text);
        let is_sum = |c: char| c.is_ascii_digit() || " ,._*/+-^()eE".contains(c);
        let end = text.find(|c| !is_sum(c)).unwrap_or(text.len());
        let (sum, words) = text.split_at(end);
        // A word that begins with an e belongs to the words: `5 eggs`.
        let sum = sum.trim_end().trim_end_matches(['e', 'E']);
        let sum: String = sum.chars().filter(|c| !",_ ".contains(*c)).collect();
        // A library reads sums, so that a candidate may write the sum instead of its result.
        let number = match sum.parse() {
            Ok(number) => number,
            Err(_) if sum.is_empty() => return Err(no_number()),
            Err(_) => exmex::eval_str::<f64>(&sum).map_err(|_| no_number())?,
        };
        if !f64::is_finite(number) {
            return Err(no_number());
        }
        Ok(Self { number, size: size(words) })
    }

    /// Its value, if the number counts things and not millions of them.
    pub fn value(self) -> f64 {
        self.number * self.size.unwrap_or(1.0)
    }
}

/// What the first word of a unit multiplies a number with: `million links`, `GB`.
pub fn size(unit: &str) -> Option<f64> {
    let word = unit.split_whitespace().next()?;
    let word = word.trim_end_matches(['.', ',', ';']);
    match word {
        "k" | "K" | "thousand" | "kB" | "KB" | "kilobytes" => Some(1e3),
        "M" | "m" | "mn" | "million" | "millions" | "MB" | "megabytes" => Some(1e6),
        "bn" | "billion" | "billions" | "GB" | "gigabytes" | "G" => Some(1e9),
        "trillion" | "trillions" | "TB" | "terabytes" | "T" => Some(1e12),
        "PB" => Some(1e15),
        "B" | "bytes" | "byte" => Some(1.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_read_as_people_write_it() {
        for (text, number, size) in [
            ("860,000", 860_000.0, None),
            ("860 000 links a day", 860_000.0, None),
            ("~ 0.86 million", 0.86, Some(1e6)),
            ("about 5k", 5.0, Some(1e3)),
            ("1e6", 1e6, None),
            ("1.5e3 eggs", 1500.0, None),
            ("5 eggs", 5.0, None),
            ("10 * 86400", 864_000.0, None),
            ("10^6/4", 250_000.0, None),
            ("63 GB", 63.0, Some(1e9)),
            ("63GB.", 63.0, Some(1e9)),
            ("160 ms", 160.0, None),
            ("-3", -3.0, None),
        ] {
            assert_eq!(Said::parse(text), Ok(Said { number, size }), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "many", "e", "GB 5", "1/0", "5 +", "()"] {
            let error = Said::parse(text).unwrap_err().to_string();
            assert!(error.contains("is no number"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read_back(number in -1e12..1e12_f64) {
            let said = Said::parse(&format!("{number}")).unwrap();
            prop_assert!((said.number - number).abs() <= number.abs() * 1e-12);
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,40}") {
            let _ = Said::parse(&text);
        }
    }
}
