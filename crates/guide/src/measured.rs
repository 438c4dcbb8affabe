//! What does the page *Measured* show? The recorded figures, the comparisons, and the limits of these numbers.

use std::fmt::Write;

use lab::{
    Answer,
    recorder::Figure,
    report::{escaped, number},
};

use crate::{
    record::{Measured, Recorded},
    render::{Verdict, day_and_time},
};

const INTRODUCTION: &str = "# Measured

Every experiment with its default parameters, in a release build, several times in a row. A figure is the median of the
runs; in brackets are the smallest and the greatest. A claim holds if every check held in every run. This page is what
`cargo run --release -- measure` recorded. To measure your own machine, and to keep this record, run
`cargo run --release -- measure --into target/measured`.

## What limits these numbers

- The program, its servers and the clients that load it share one machine with few cores. Each gets only a part of them.
- The network is the loopback interface: a round trip takes some hundredths of a millisecond. A real network adds a
  fraction of a millisecond, or more, to every one.
- The data fit into memory, and the databases are nearly empty.
- It is a virtual machine. How far the runs lie apart shows how much its neighbours disturb it.

So the ratios say more than the rates: both sides of a ratio were measured in turns, in the same minute, under the same
conditions. A rate tells what this code costs at best; plan with a tenth of it.
";

/// The page.
pub fn page(answers: &[Answer], problems: &mut Vec<String>) -> String {
    let mut measured = Vec::new();
    for answer in answers {
        match Measured::read(&Measured::path(answer)) {
            Ok(one) => measured.push((answer, one)),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    for (answer, measured) in &measured {
        for experiment in &answer.experiments {
            if measured.of(experiment.name).is_none() {
                let (of, name) = (answer.name, experiment.name);
                problems.push(format!("{of} {name} was never measured: `measure {of}` does it"));
            }
        }
    }
    let mut page = INTRODUCTION.to_owned();
    page += &comparisons(measured.iter().flat_map(|(_, one)| &one.reports));
    for (answer, Measured { reports }) in &measured {
        page += &table(answer.name, reports);
    }
    page
}

/// Every ratio of all answers: what was measured against what.
fn comparisons<'a>(reports: impl Iterator<Item = &'a Recorded>) -> String {
    let mut table = "\n## Measured against what\n\n| answer | experiment | this ÷ that | |\n\
                     |---|---|---|---|\n"
        .to_owned();
    for (one, figure) in reports.flat_map(|it| it.report.figures.iter().map(move |one| (it, one))) {
        if figure.name.contains('÷') {
            let (answer, experiment) = (&one.report.answer, &one.report.experiment);
            let link = format!("[`{experiment}`]({answer}.md#{answer}-{experiment})");
            let (name, value) = (cell(&figure.name), value(figure));
            let _ = writeln!(table, "| {answer} | {link} | {name} | {value} |");
        }
    }
    table
}

fn table(answer: &str, reports: &[Recorded]) -> String {
    let mut text = format!("\n## {answer}\n\n");
    let mut measured_on: Vec<String> = Vec::new();
    for Recorded { machine, commit, .. } in reports {
        let on = format!("{machine}, at commit {commit}");
        if !measured_on.contains(&on) {
            measured_on.push(on);
        }
    }
    for on in measured_on {
        let _ = writeln!(text, "On {}.\n", escaped(&on));
    }
    text += "| experiment | verdict | figures |\n|---|---|---|\n";
    for Recorded { runs, at, report, .. } in reports {
        let name = &report.experiment;
        let held = report.checks.iter().filter(|check| check.held).count();
        let figures =
            report.figures.iter().map(|one| format!("{}: {}", cell(&one.name), value(one)));
        let times = if *runs == 1 { "one run".to_owned() } else { format!("{runs} runs") };
        let mut made = vec![format!(
            "{held} of {} checks in {times} of {:.0} s",
            report.checks.len(),
            report.seconds
        )];
        made.extend(report.servers.iter().map(|server| cell(server)));
        made.push(day_and_time(*at));
        let _ = writeln!(
            text,
            "| [`{name}`]({answer}.md#{answer}-{name}) | {}: {} | {} |",
            Verdict::of(report).word(),
            made.join(", "),
            figures.collect::<Vec<_>>().join("<br>"),
        );
    }
    text
}

/// `**0.66** ms (0.64–0.7)`. Without the target, which is not a result.
fn value(figure: &Figure) -> String {
    let mut words = format!("**{}** {}", number(figure.value), cell(&figure.unit));
    if let Some(spread) = figure.spread {
        let _ = write!(words, " ({}–{})", number(spread.least), number(spread.most));
    }
    words.replace("  ", " ").trim_end().to_owned()
}

fn cell(text: &str) -> String {
    escaped(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recorded(servers: &[&str]) -> Recorded {
        serde_json::from_value(json!({
            "runs": 5, "commit": "abc", "at": "2026-11-28T22:00:00Z",
            "machine": {"processor": "x", "cores": 2, "memory_gib": 4, "system": "y", "rust": "z"},
            "answer": "sums", "experiment": "two", "claim": "", "params": {}, "build": "release",
            "servers": servers, "seconds": 1.0, "text": [], "tables": [], "series": [],
            "figures": [{"name": "size", "value": 3.0, "unit": "kB"}],
            "checks": [{"check": "sum", "expected": "4", "seen": "4", "held": true}],
        }))
        .unwrap()
    }

    #[test]
    fn an_experiment_without_servers_has_no_empty_part() {
        let without = table("sums", &[recorded(&[])]);
        assert!(without.contains("in 5 runs of 1 s, 2026-11-28 22:00 UTC |"), "{without}");
        let with = table("sums", &[recorded(&["PostgreSQL 15.18", "Redis 7.0"])]);
        assert!(with.contains("of 1 s, PostgreSQL 15.18, Redis 7.0, 2026-11-28"), "{with}");
    }
}
