//! How do we keep a number in a chapter equal to the measured one? A comment behind the number names its figure:
//!
//! > takes 33 µs<!-- verify: our verifier, median -->
//!
//! Readers see only the number. The book's checks compare it with `measured.json`, to the digits shown, and
//! `measure --chapters` writes the recorded value. In place of a figure's name the comment may contain:
//!
//! - `our verifier, median (least)`, or `(most)`: the smallest or the greatest value of all runs;
//! - `10,000,000 / our verifier, median`, or `10,000 × memory for a socket`: a value computed from the figure;
//! - the name of a check that saw a number.
//!
//! In the tables of the parts *The textbook answer, checked* and *Scale it*, every number has such a comment, or is in
//! the part's list of numbers that were not measured: `<!-- not measured: 62 4.3 -->`.

use std::{collections::BTreeSet, sync::LazyLock};

use interview::measured::{grouped, number_seen};
use regex::{Captures, Regex};

use crate::{element::pattern, record::Measured};

/// A number, its unit and its figure.
static MARKED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(\d[\d,]*(?:\.\d+)?)(?:[ \u{a0}](million|billion|µs|ms|s|bytes|kB|KiB|MB|MiB|GB|%))?<!-- ([a-z0-9-]+): (.+?) -->",
    )
});
/// A factor before a figure.
static SUM: LazyLock<Regex> = LazyLock::new(|| pattern(r"^([\d,]+) ([/×]) (.+)$"));
static COMMENT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)<!--.*?-->"));
static NOT_MEASURED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"<!-- not measured: ([^>]*?) -->"));
/// Code, and the targets of links: numbers in them do not count.
static NO_PROSE: LazyLock<Regex> = LazyLock::new(|| pattern(r"`[^`]*`|\]\([^)]*\)"));
/// A number that is not part of a name, as in SHA-256 and P4.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:^|[^\w.,-])(\d[\d,]*(?:\.\d+)?)\b"));

/// What is wrong with the numbers of a chapter.
pub fn problems(text: &str, measured: &Measured) -> Vec<String> {
    let mut problems = Vec::new();
    for found in MARKED.captures_iter(text) {
        match recorded(&found, measured) {
            Ok(value) if agrees(&found[1], value) => {}
            Ok(value) => problems.push(format!(
                "{}: the record has {} ({value}); `measure --chapters` writes it",
                &found[0],
                written(value, &found[1])
            )),
            Err(problem) => problems.push(format!("{}: {problem}", &found[0])),
        }
    }
    let rest = MARKED.replace_all(text, "");
    for found in COMMENT.find_iter(&rest).filter(|one| !NOT_MEASURED.is_match(one.as_str())) {
        problems.push(format!("{}: there is no number in front of it", found.as_str()));
    }
    for part in ["The textbook answer, checked", "Scale it"] {
        problems.extend(unmarked(part, &rest));
    }
    problems
}

/// The chapter with the recorded value in place of each marked number.
pub fn update(text: &str, measured: &Measured) -> String {
    let new = |found: &Captures<'_>| match recorded(found, measured) {
        Ok(value) if !agrees(&found[1], value) => {
            format!("{}{}", written(value, &found[1]), &found[0][found[1].len()..])
        }
        // If there is no record, the check reports the problem.
        _ => found[0].to_owned(),
    };
    MARKED.replace_all(text, new).into_owned()
}

/// The recorded value of a marked number, in the unit of the text.
fn recorded(found: &Captures<'_>, measured: &Measured) -> Result<f64, String> {
    let unit = found.get(2).map_or("", |unit| unit.as_str());
    let (experiment, what) = (&found[3], &found[4]);
    if let Some(sum) = SUM.captures(what) {
        let (value, of) = looked_up(experiment, &sum[3], measured)?;
        let factor: f64 = sum[1].replace(',', "").parse().unwrap_or(f64::NAN);
        return match &sum[2] {
            "/" => in_unit(factor / value, "", unit),
            _ => in_unit(factor * value, &of, unit),
        };
    }
    let (value, of) = looked_up(experiment, what, measured)?;
    in_unit(value, &of, unit)
}

/// A figure's value, or the number that was seen in a check, and its unit.
fn looked_up(experiment: &str, name: &str, measured: &Measured) -> Result<(f64, String), String> {
    let report = &measured.of(experiment).ok_or("this experiment was not measured")?.report;
    let (name, end) = match name.strip_suffix(')').and_then(|name| name.rsplit_once(" (")) {
        Some((name, end @ ("least" | "most"))) => (name, Some(end)),
        _ => (name, None),
    };
    if let Some(figure) = report.figures.iter().find(|figure| figure.name == name) {
        let value = match (end, figure.spread) {
            (Some("least"), Some(spread)) => spread.least,
            (Some("most"), Some(spread)) => spread.most,
            _ => figure.value,
        };
        return Ok((value, figure.unit.clone()));
    }
    let check = report.checks.iter().find(|check| check.check == name);
    let check = check.ok_or("the record has no such figure and no such check")?;
    let seen = number_seen(&check.seen);
    let (value, unit) = seen.ok_or_else(|| format!("{:?} was seen", check.seen))?;
    Ok((value, unit.to_owned()))
}

/// A recorded value in the unit of the text.
fn in_unit(value: f64, from: &str, to: &str) -> Result<f64, String> {
    let seconds = |unit| {
        Some(match unit {
            "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            _ => return None,
        })
    };
    let bytes = |unit| {
        Some(match unit {
            "bytes" => 1.0,
            "kB" => 1e3,
            "KiB" => 1_024.0,
            "MB" => 1e6,
            "MiB" => 1_048_576.0,
            "GB" => 1e9,
            _ => return None,
        })
    };
    match (seconds(from), seconds(to), bytes(from), bytes(to)) {
        (Some(from), Some(to), ..) | (_, _, Some(from), Some(to)) => return Ok(value * from / to),
        // The time of one, from the rate per second.
        (None, Some(to), ..) if from.ends_with("/s") => return Ok(1.0 / value / to),
        _ => {}
    }
    match to {
        "" => Ok(value),
        "million" => Ok(value / 1e6),
        "billion" => Ok(value / 1e9),
        "%" if from.is_empty() => Ok(value * 100.0),
        _ if from == to => Ok(value),
        _ => Err(format!("the record is in {from:?}")),
    }
}

/// Whether a number is this value, rounded to the digits that it shows.
pub fn agrees(shown: &str, value: f64) -> bool {
    let number: f64 = shown.replace(',', "").parse().unwrap_or(f64::NAN);
    (number - value).abs() <= step(shown) / 2.0 * (1.0 + 1e-9)
}

/// The difference to the next number with the same digits.
fn step(shown: &str) -> f64 {
    10_f64.powi(last_place(shown))
}

/// The power of ten of the last significant digit. Zeros at the end of a whole number are not significant, but its
/// first two digits always are.
fn last_place(shown: &str) -> i32 {
    let digits = shown.replace(',', "");
    let place = if let Some((_, decimals)) = digits.split_once('.') {
        i32::try_from(decimals.len()).map(i32::wrapping_neg)
    } else {
        let zeros = digits.len() - digits.trim_end_matches('0').len();
        i32::try_from(zeros.min(digits.len().saturating_sub(2)))
    };
    place.unwrap_or(0)
}

/// A value with as many significant digits as the number that it replaces, and at least two if it is ten or more.
fn written(value: f64, like: &str) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let power_of_ten = |number: &str| number.split_once('e').and_then(|it| it.1.parse().ok());
    let power: i32 = power_of_ten(&format!("{value:e}")).unwrap_or(0);
    let digits = like.replace([',', '.'], "").trim_start_matches('0').len();
    let counting = digits - usize::try_from(last_place(like)).unwrap_or(0).min(digits);
    let counting = counting.max(if power > 0 { 2 } else { 1 });
    let rounded = format!("{value:.*e}", counting - 1);
    let power = power_of_ten(&rounded).unwrap_or(0);
    let decimals = i32::try_from(counting).map_or(0, |counting| counting - 1 - power);
    let decimals = usize::try_from(decimals).unwrap_or(0);
    let rounded = format!("{:.decimals$}", rounded.parse().unwrap_or(value));
    grouped(&rounded)
}

/// The numbers in a part's table of results that have no mark and are not listed as not measured, and the listed
/// numbers that the table does not have. `text` is a chapter without its marked numbers.
fn unmarked(part: &str, text: &str) -> Vec<String> {
    let Some((_, text)) = text.split_once(&format!("\n## {part}\n")) else { return Vec::new() };
    let text = text.split("\n## ").next().unwrap_or_default();
    let table = text.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    let mut found = BTreeSet::new();
    for row in rows {
        let row = COMMENT.replace_all(row, "");
        let row = NO_PROSE.replace_all(&row, "");
        // The first cell contains the statement or the setting, not a result.
        let cells = row.splitn(3, '|').nth(2).unwrap_or_default();
        found.extend(NUMBER.captures_iter(cells).map(|found| found[1].to_owned()));
    }
    let listed: BTreeSet<_> = NOT_MEASURED
        .captures_iter(text)
        .flat_map(|list| list[1].split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let unmarked = found.difference(&listed).map(|number| {
        format!("{part}: {number} has no mark, and is not in the list of what is not measured")
    });
    let gone = listed.difference(&found).map(|number| {
        format!("{part}: {number} is listed as not measured, and the table does not have it")
    });
    unmarked.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        let record = serde_json::json!({"reports": [{
            "runs": 5, "commit": "abc", "at": "2026-11-28T22:00:00Z",
            "machine": {"processor": "x", "cores": 2, "memory_gib": 4, "system": "y", "rust": "z"},
            "answer": "sums", "experiment": "cost", "claim": "", "params": {}, "build": "release",
            "servers": [], "seconds": 1.0, "text": [], "tables": [], "series": [],
            "figures": [
                {"name": "share, median", "value": 0.5282, "unit": "",
                 "spread": {"least": 0.41, "most": 0.6}},
                {"name": "rate", "value": 30_603.7, "unit": "/s"},
                {"name": "slowest", "value": 73.56, "unit": "ms"},
                {"name": "size", "value": 8.1168, "unit": "KiB"},
                {"name": "guesses", "value": 11_933_007.5, "unit": "guesses/s"},
            ],
            "checks": [
                {"check": "deadlocks: all", "expected": "1 or more", "seen": "118", "held": true},
                {"check": "off by", "expected": "above 1 %", "seen": "18.309 %", "held": true},
                {"check": "books", "expected": "right", "seen": "right", "held": true},
            ],
        }]});
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_marked_number_is_the_recorded_one_to_the_digits_that_it_shows() {
        for good in [
            "0.53<!-- cost: share, median -->",
            "0.528<!-- cost: share, median -->",
            "53 %<!-- cost: share, median -->",
            "0.41<!-- cost: share, median (least) --> to 0.60<!-- cost: share, median (most) -->",
            "30,600<!-- cost: rate --> a second, 33 µs<!-- cost: rate --> each",
            "31,000<!-- cost: rate -->",
            "0.07 s<!-- cost: slowest -->",
            "8,312 bytes<!-- cost: size -->",
            "11.9 million<!-- cost: guesses -->",
            "118<!-- cost: deadlocks: all -->",
            "18 %<!-- cost: off by -->",
            "327<!-- cost: 10,000,000 / rate --> cores",
            "3.3 %<!-- cost: 1,000 / rate -->",
            "83 MB<!-- cost: 10,000 × size -->",
        ] {
            assert_eq!(problems(good, &measured()), Vec::<String>::new(), "{good}");
            assert_eq!(update(good, &measured()), good);
        }
        for (bad, problem, updated) in [
            ("0.63<!-- cost: share, median -->", "0.53 (", "0.53<!-- cost: share, median -->"),
            ("0.52<!-- cost: share, median -->", "0.53 (", "0.53<!-- cost: share, median -->"),
            ("32,000<!-- cost: rate -->", "31,000 (", "31,000<!-- cost: rate -->"),
            ("8 ms<!-- cost: slowest -->", "74 (", "74 ms<!-- cost: slowest -->"),
            ("100<!-- cost: deadlocks: all -->", "120 (", "120<!-- cost: deadlocks: all -->"),
        ] {
            let found = problems(bad, &measured());
            assert!(found.len() == 1 && found[0].contains(problem), "{bad}: {found:?}");
            assert_eq!(update(bad, &measured()), updated);
        }
    }

    #[test]
    fn a_new_number_has_as_many_digits_as_the_old_one() {
        for (value, like, written) in [
            (8.24, "0.4", "8"),
            (12.4, "9", "12"),
            (39.06, "2.3", "39"),
            (2_225.9, "6.5", "2,200"),
            (1.008, "0.996", "1.01"),
            (3.02, "0.71", "3.0"),
            (25_312.0, "104,000", "25,300"),
            (118.0, "100", "120"),
            (1_234_567.0, "1,440", "1,230,000"),
            (0.000_52, "2.0", "0.00052"),
            (0.0, "17", "0"),
        ] {
            assert_eq!(super::written(value, like), written, "{value} like {like}");
            assert!(agrees(written, value), "{value} like {like}");
        }
    }

    #[test]
    fn a_mark_that_names_nothing_recorded_or_no_number_is_a_problem() {
        for (bad, problem) in [
            ("0.53<!-- costs: share, median -->", "was not measured"),
            ("0.53<!-- cost: share -->", "no such figure"),
            ("7 bytes<!-- cost: slowest -->", "is in \"ms\""),
            ("1<!-- cost: books -->", "\"right\" was seen"),
            ("half<!-- cost: share, median -->", "no number in front"),
        ] {
            let found = problems(bad, &measured());
            assert!(found.len() == 1 && found[0].contains(problem), "{bad}: {found:?}");
            assert_eq!(update(bad, &measured()), bad);
        }
    }

    #[test]
    fn a_number_in_a_table_of_results_has_a_mark_or_is_listed_as_not_measured() {
        let chapter = |verdict: &str, list: &str| {
            format!(
                "# A\n\n## The textbook answer, checked\n\nIn 7 runs.\n\n| said | verdict |\n|---|---|\n\
                 | 9 of 10 | {verdict} |\n\n{list}\n\n| another | 5 |\n\n## Scale it\n\n8\n"
            )
        };
        let list = "<!-- not measured: 62 4.3 -->";
        for (verdict, list) in [
            ("**Wrong** for SHA-256, `62`, [x](#y-1)", ""),
            ("0.53<!-- cost: share, median -->", ""),
            ("62⁷, 4.3 billion", list),
        ] {
            let found = problems(&chapter(verdict, list), &measured());
            assert_eq!(found, Vec::<String>::new(), "{verdict}");
        }
        for (verdict, list, problem) in [
            ("0.53 of it", "", "0.53 has no mark"),
            ("1,440 updates", "", "1,440 has no mark"),
            ("62⁷", list, "4.3 is listed"),
        ] {
            let found = problems(&chapter(verdict, list), &measured());
            assert!(found.len() == 1 && found[0].contains(problem), "{verdict}: {found:?}");
        }
    }
}
