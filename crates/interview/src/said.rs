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
#[error(
    "{0:?} is no number: write it as 860,000 or 0.86 million or 10 * 86400 (commas and spaces only before three digits)"
)]
pub struct NoNumber(String);

/// A longer text is no number.
const LONGEST: usize = 100;
/// A larger number is no estimate. What is computed with smaller ones stays finite, so that a file can hold it.
const LARGEST: f64 = 1e30;

impl Said {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, NoNumber> {
        let no_number = || NoNumber(text.trim().chars().take(LONGEST).collect());
        if text.chars().count() > LONGEST {
            return Err(no_number());
        }
        let text = text.trim().trim_start_matches(['~', '≈', '=', ' ']);
        let text = text.strip_prefix("about ").unwrap_or(text);
        let is_sum = |c: char| c.is_ascii_digit() || " ,._*/+-^()eE".contains(c);
        let end = text.find(|c| !is_sum(c)).unwrap_or(text.len());
        let (sum, words) = text.split_at(end);
        // A word that begins with an e belongs to the words: `5 eggs`.
        let sum = sum.trim_end().trim_end_matches(['e', 'E']).trim_end_matches([',', ' ']);
        if !sum.split(|c| "*/+-^()".contains(c)).all(is_one_number) {
            return Err(no_number());
        }
        let sum: String = sum.chars().filter(|c| !",_ ".contains(*c)).collect();
        // A library reads sums, so that a candidate may write the sum instead of its result.
        let number = match sum.parse() {
            Ok(number) => number,
            Err(_) if sum.is_empty() => return Err(no_number()),
            Err(_) => exmex::eval_str::<f64>(&sum).map_err(|_| no_number())?,
        };
        let said = Self { number, size: size(words) };
        // Not a number, which compares with nothing, is refused too.
        if said.number.abs() <= LARGEST && said.value().abs() <= LARGEST {
            Ok(said)
        } else {
            Err(no_number())
        }
    }

    /// Its value, if the number counts things and not millions of them.
    pub fn value(self) -> f64 {
        self.number * self.size.unwrap_or(1.0)
    }

    /// Its value in this unit: for a figure in ms, `5`, `5 ms` and `0.005 s` are all 5.
    pub fn in_unit(self, unit: &str) -> f64 {
        match self.size {
            Some(size) => self.number * size / self::size(unit).unwrap_or(1.0),
            None => self.number,
        }
    }
}

/// Spaces and commas join groups of three digits. Much of the world writes 1,5 for 1.5, and it must not become 15; nor
/// are the two numbers `1 2` one of 12.
fn is_one_number(text: &str) -> bool {
    let mut groups: Vec<_> = text.trim().split([' ', ',']).collect();
    let is_digits = |group: &str| group.bytes().all(|c| c.is_ascii_digit());
    let digits = |group: &str| group.bytes().take_while(u8::is_ascii_digit).count();
    // The last group may go on behind its digits: `1,000.5`.
    let Some(last) = groups.pop() else { return true };
    let Some((first, between)) = groups.split_first() else { return true };
    (1..=3).contains(&first.len())
        && is_digits(first)
        && between.iter().all(|group| group.len() == 3 && is_digits(group))
        && digits(last) == 3
}

/// A number as people write it: `1,000,000` or `0.02`.
pub fn written(number: f64) -> String {
    let text = number.to_string();
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.char_indices() {
        if (whole.len() - at).is_multiple_of(3) && grouped.ends_with(|c: char| c.is_ascii_digit()) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// What the first word of a unit multiplies a number with: `million links`, `GB`.
pub fn size(unit: &str) -> Option<f64> {
    let word = unit.split_whitespace().next()?;
    let word = word.trim_end_matches(['.', ',', ';']);
    match word {
        "k" | "K" | "thousand" | "kB" | "KB" | "kilobytes" => Some(1e3),
        // Not `m`: it may mean minutes.
        "M" | "mn" | "million" | "millions" | "MB" | "megabytes" => Some(1e6),
        "B" | "bn" | "billion" | "billions" | "GB" | "gigabytes" | "G" => Some(1e9),
        "trillion" | "trillions" | "TB" | "terabytes" | "T" => Some(1e12),
        "PB" => Some(1e15),
        "KiB" => Some(1_024.0),
        "MiB" => Some(1_024.0 * 1_024.0),
        "GiB" => Some(1_024.0 * 1_024.0 * 1_024.0),
        "TiB" => Some(1_024.0 * 1_024.0 * 1_024.0 * 1_024.0),
        "bytes" | "byte" | "s" | "second" | "seconds" => Some(1.0),
        "µs" | "us" | "microseconds" => Some(1e-6),
        "ms" | "milliseconds" => Some(1e-3),
        "min" | "minute" | "minutes" => Some(60.0),
        "h" | "hour" | "hours" => Some(3_600.0),
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
            ("1 000,000.5 * 10", 10_000_005.0, None),
            ("(1,000 + 2) * 3", 3_006.0, None),
            ("1e6", 1e6, None),
            ("1.5e3 eggs", 1500.0, None),
            ("5 eggs", 5.0, None),
            ("10 * 86400", 864_000.0, None),
            ("10^6/4", 250_000.0, None),
            ("63 GB", 63.0, Some(1e9)),
            ("63GB.", 63.0, Some(1e9)),
            ("160 ms", 160.0, Some(1e-3)),
            ("860,000, or less", 860_000.0, None),
            ("2 B users", 2.0, Some(1e9)),
            ("5 m", 5.0, None),
            ("-3", -3.0, None),
        ] {
            assert_eq!(Said::parse(text), Ok(Said { number, size }), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "many",
            "e",
            "GB 5",
            "1/0",
            "5 +",
            "()",
            "1,5 million",
            "10,00",
            "1 2",
            "1 23 456",
            "1234 567",
            "1.5 000",
            "10 * 1 2",
            "860, 000",
            "1e308 million",
            &*"(".repeat(10_000),
        ] {
            let error = Said::parse(text).unwrap_err().to_string();
            assert!(error.contains("is no number") && error.len() < 300, "{text}: {error}");
        }
    }

    #[test]
    fn a_number_is_written_in_groups_of_three() {
        for (number, words) in [
            (1e6, "1,000,000"),
            (864_000.5, "864,000.5"),
            (100.0, "100"),
            (-1e3, "-1,000"),
            (0.02, "0.02"),
        ] {
            assert_eq!(written(number), words);
        }
    }

    #[test]
    fn a_number_is_turned_into_the_unit_of_a_figure() {
        for said in ["5", "5 ms", "0.005 s", "5000 us"] {
            let value = Said::parse(said).unwrap().in_unit("ms");
            assert!((value - 5.0).abs() < 1e-9, "{said}: {value}");
        }
        assert!((Said::parse("2k").unwrap().in_unit("/s") - 2_000.0).abs() < 1e-9);
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
