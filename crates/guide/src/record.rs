//! How do we keep the measured results of an answer? In `measured.json` in the answer's folder: for each experiment one
//! report of several runs, with the medians of its figures.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use lab::{
    Answer, Report,
    load::median,
    recorder::{Check, Figure, Spread},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    machine::Machine,
    render::{Verdict, day_and_time},
};

/// The recorded results of one answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// One for each experiment.
    pub reports: Vec<Recorded>,
}

/// The recorded result of one experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// How often it was run.
    pub runs: u32,
    /// The commit that was measured.
    pub commit: String,
    /// When the last run ended.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The machine that ran it.
    pub machine: Machine,
    /// All runs in one report, without texts, tables and charts. It holds if every run held. A figure is the median of
    /// the runs, with their spread.
    #[serde(flatten)]
    pub report: Report,
}

impl Measured {
    /// Where it is kept.
    pub fn path(answer: &Answer) -> PathBuf {
        Path::new(answer.folder).join("measured.json")
    }

    /// Reads this file. Without a file, nothing was measured.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Writes the file completely or not at all: after a Ctrl-C meanwhile the old file is still there.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            // Not the private mode of a temporary file, because the file is committed.
            #[cfg(unix)]
            file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.persist(path)?;
            anyhow::Ok(())
        };
        write().with_context(|| path.display().to_string())
    }

    /// The record of this experiment.
    pub fn of(&self, experiment: &str) -> Option<&Recorded> {
        self.reports.iter().find(|one| one.report.experiment == experiment)
    }

    /// Puts a result in the place of the experiment's old one.
    pub fn put(&mut self, new: Recorded) {
        match self.reports.iter_mut().find(|old| old.report.experiment == new.report.experiment) {
            Some(old) => *old = new,
            None => self.reports.push(new),
        }
    }
}

impl Recorded {
    /// When it was measured, and on which machine.
    pub fn on(&self) -> String {
        format!("{}, {}", day_and_time(self.at), self.machine)
    }

    /// Makes a record from these runs of one experiment on this machine.
    pub fn of(runs: &[Report], commit: &str) -> anyhow::Result<Self> {
        let (first, at) = (runs.first().context("no run")?, OffsetDateTime::now_utc());
        let all_of = |name| runs.iter().all(|run: &Report| run.experiment == name);
        ensure!(all_of(first.experiment.as_str()), "these are runs of several experiments");
        let failed = runs.iter().find(|run| run.error.is_some() || run.skipped.is_some());
        let report = Report {
            seconds: median(runs.iter().map(|run| run.seconds).collect()),
            text: Vec::new(),
            figures: figures(runs),
            tables: Vec::new(),
            series: Vec::new(),
            checks: checks(runs),
            error: failed.and_then(|run| run.error.clone()),
            skipped: failed.and_then(|run| run.skipped.clone()),
            ..first.clone()
        };
        let (runs, commit) = (u32::try_from(runs.len())?, commit.to_owned());
        Ok(Self { runs, commit, at, machine: Machine::this(), report })
    }

    /// Why this is worth less than `old`, if it is.
    pub fn worse_than(&self, old: &Self) -> Option<String> {
        let (new_verdict, old_verdict) = (Verdict::of(&self.report), Verdict::of(&old.report));
        if worth(new_verdict) < worth(old_verdict) {
            let (new, old) = (new_verdict.word(), old_verdict.word());
            return Some(format!("this is \"{new}\", where the record is \"{old}\""));
        }
        (self.runs < old.runs)
            .then(|| format!("these are {} runs, where the record has {}", self.runs, old.runs))
    }
}

fn worth(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Held => 3,
        Verdict::Refuted => 2,
        Verdict::BrokeOff => 1,
        Verdict::Skipped => 0,
    }
}

/// Each figure once, in the order in which they were first seen.
fn figures(runs: &[Report]) -> Vec<Figure> {
    let mut all: Vec<(Figure, Vec<f64>)> = Vec::new();
    for figure in runs.iter().flat_map(|run| &run.figures) {
        match all.iter_mut().find(|(known, _)| known.name == figure.name) {
            Some((_, values)) => values.push(figure.value),
            None => all.push((figure.clone(), vec![figure.value])),
        }
    }
    let figure = |(figure, values): (Figure, Vec<f64>)| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = (values.len() > 1).then_some(Spread { least, most });
        Figure { value: median(values), spread, ..figure }
    };
    all.into_iter().map(figure).collect()
}

/// Each check once. It held if it held in every run; otherwise it shows what was seen when it did not.
fn checks(runs: &[Report]) -> Vec<Check> {
    let mut all: Vec<Vec<&Check>> = Vec::new();
    for check in runs.iter().flat_map(|run| &run.checks) {
        match all.iter_mut().find(|known| known[0].check == check.check) {
            Some(known) => known.push(check),
            None => all.push(vec![check]),
        }
    }
    let check = |mut seen: Vec<&Check>| {
        if let Some(failed) = seen.iter().find(|check| !check.held) {
            return (*failed).clone();
        }
        // The seen values are often numbers. Then show the middle one.
        seen.sort_by(|a, b| number(&a.seen).total_cmp(&number(&b.seen)));
        seen[(seen.len() - 1) / 2].clone()
    };
    all.into_iter().map(check).collect()
}

/// The number to sort by. Values that are not numbers become NaN and keep their order.
fn number(seen: &str) -> f64 {
    seen.parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: f64, seen: &str, held: bool) -> Report {
        let json = serde_json::json!({
            "answer": "sums", "experiment": "two", "claim": "Two and two are four",
            "params": {}, "build": "release", "servers": [], "seconds": value,
            "text": ["a remark"], "tables": [], "series": [],
            "figures": [{"name": "speed", "value": value, "unit": "/s"}],
            "checks": [{"check": "sum", "expected": "4", "seen": seen, "held": held}],
        });
        serde_json::from_value(json).unwrap()
    }

    fn recorded(runs: &[Report]) -> Recorded {
        Recorded::of(runs, "abc").unwrap()
    }

    #[test]
    fn a_record_has_the_median_and_the_spread_of_each_figure_and_the_verdict_over_all_runs() {
        let all = [run(5.0, "9", true), run(1.0, "10", true), run(2.0, "4", true)];
        let Recorded { runs, report, .. } = recorded(&all);
        let spread = Some(Spread { least: 1.0, most: 5.0 });
        assert_eq!((runs, report.seconds, report.figures.len()), (3, 2.0, 1));
        assert_eq!((report.figures[0].value, report.figures[0].spread), (2.0, spread));
        assert_eq!((report.checks[0].seen.as_str(), report.held()), ("9", true));
        assert!(report.text.is_empty());

        let report =
            recorded(&[run(5.0, "4", true), run(1.0, "5", false), run(2.0, "4", true)]).report;
        assert_eq!((report.checks.len(), report.checks[0].seen.as_str()), (1, "5"));
        assert!(!report.held(), "one of three runs refuted it");
    }

    #[test]
    fn a_record_that_is_worse_says_why() {
        let good = recorded(&[run(1.0, "4", true), run(1.0, "4", true)]);
        let refuted = recorded(&[run(1.0, "5", false), run(1.0, "4", true)]);
        let skipped = Report { skipped: Some("no server".to_owned()), ..run(1.0, "4", true) };
        let skipped = recorded(&[skipped.clone(), skipped]);
        let fewer = recorded(&[run(1.0, "4", true)]);
        for (new, old, why) in [
            (&refuted, &good, "\"Refuted\""),
            (&skipped, &good, "\"Skipped\""),
            (&skipped, &refuted, "\"Skipped\""),
            (&fewer, &good, "1 runs"),
        ] {
            let found = new.worse_than(old).unwrap();
            assert!(found.contains(why), "{found}");
        }
        for (new, old) in [(&good, &good), (&good, &refuted), (&refuted, &skipped), (&good, &fewer)]
        {
            assert_eq!(new.worse_than(old), None);
        }
    }

    #[test]
    fn a_record_is_the_same_after_a_journey_through_its_file_and_replaces_its_own_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("measured.json");
        assert!(Measured::read(&path).unwrap().reports.is_empty(), "nothing was measured yet");
        let mut measured = Measured::default();
        measured.put(recorded(&[run(1.0, "4", true), run(2.0, "4", true)]));
        let other = Report { experiment: "three".to_owned(), ..run(3.0, "4", true) };
        measured.put(recorded(&[other]));
        measured.put(recorded(&[run(7.0, "4", true)]));
        measured.write(&path).unwrap();
        let back = Measured::read(&path).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), serde_json::to_value(&measured).unwrap());
        assert_eq!((back.reports.len(), back.of("two").unwrap().runs), (2, 1));
        assert!((back.of("two").unwrap().report.figures[0].value - 7.0).abs() < 1e-9);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
