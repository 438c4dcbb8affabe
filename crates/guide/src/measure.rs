//! What came of every experiment, on which machine? `cargo run --release -- measure` runs them all and writes it
//! down in `measured.json`, which is committed; the book shows it on a page.

use std::{collections::HashSet, fmt::Write, fs, path::PathBuf, process::Command};

use anyhow::{Context, bail};
use lab::{
    Answer, Report,
    report::{escaped, number},
    results,
    stack::workspace,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::mpsc::unbounded_channel;

use crate::render::{Verdict, day_and_time};

/// All of one answer's experiments, run one after another.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    answer: String,
    machine: Machine,
    /// One for each experiment, without what its own chapter shows: tables and charts.
    reports: Vec<Report>,
}

/// What it was measured on.
#[derive(Debug, Serialize, Deserialize)]
struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    system: String,
    rust: String,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

fn path() -> PathBuf {
    workspace().join("crates/guide/book/measured.json")
}

/// Runs every experiment of these answers with its default parameters and writes down what came of it. What
/// is written of other answers stays. Whether every claim held.
pub async fn measure(answers: &[Answer]) -> anyhow::Result<bool> {
    if cfg!(debug_assertions) {
        bail!("a debug build measures nothing worth keeping: cargo run --release -- measure");
    }
    let mut good = true;
    for answer in answers {
        let mut reports = Vec::new();
        for experiment in &answer.experiments {
            let (events, _unread) = unbounded_channel();
            let report = experiment.run(answer, &[], events).await?;
            let verdict = Verdict::of(&report);
            let (name, seconds) = (experiment.name, report.seconds);
            println!("{} {name}: {}, {seconds:.1} s", answer.name, verdict.word());
            good &= matches!(verdict, Verdict::Held | Verdict::Skipped);
            results::store(&report)?;
            reports.push(Report {
                tables: Vec::new(),
                series: Vec::new(),
                text: Vec::new(),
                ..report
            });
        }
        write(Measured { answer: answer.name.to_owned(), machine: Machine::this(), reports })?;
    }
    Ok(good)
}

/// In place of what was measured of this answer before.
fn write(measured: Measured) -> anyhow::Result<()> {
    let mut all = read()?;
    all.retain(|other| other.answer != measured.answer);
    all.push(measured);
    let order: Vec<_> = crate::answers().iter().map(|answer| answer.name).collect();
    all.sort_by_key(|one| order.iter().position(|name| *name == one.answer));
    let path = path();
    fs::write(&path, serde_json::to_vec_pretty(&all)?).with_context(|| path.display().to_string())
}

fn read() -> anyhow::Result<Vec<Measured>> {
    let path = path();
    if !path.exists() {
        return Ok(Vec::new());
    }
    let read = || anyhow::Ok(serde_json::from_slice(&fs::read(&path)?)?);
    read().with_context(|| path.display().to_string())
}

/// The page.
pub fn page(problems: &mut Vec<String>) -> String {
    let measured = read().unwrap_or_else(|error| {
        problems.push(format!("{error:#}"));
        Vec::new()
    });
    let mut page = "# Measured\n\nEvery experiment with its default parameters in a release build, as `cargo run \
                    --release -- measure` wrote it down, the servers and the load on the same machine. Yours will \
                    differ: run it, and see by how much.\n"
        .to_owned();
    let reports = measured.iter().flat_map(|one| &one.reports);
    let there: HashSet<_> =
        reports.map(|it| (it.answer.as_str(), it.experiment.as_str())).collect();
    for answer in crate::answers() {
        for experiment in &answer.experiments {
            let (of, name) = (answer.name, experiment.name);
            if !there.contains(&(of, name)) {
                problems.push(format!("{of} {name} was never measured: `measure {of}` does it"));
            }
        }
    }
    page += &targets(&measured);
    for Measured { answer, machine, reports } in &measured {
        let Machine { processor, cores, memory_gib, system, rust, at } = machine;
        let _ = write!(
            page,
            "\n## {answer}\n\nOn {}: {processor}, {cores} cores, {memory_gib} GiB, {system}, {rust}.\n\n\
             | experiment | verdict | figures |\n|---|---|---|\n",
            day_and_time(*at),
        );
        for report in reports {
            let name = &report.experiment;
            let held = report.checks.iter().filter(|check| check.held).count();
            let _ = writeln!(
                page,
                "| [`{name}`]({answer}.md#{answer}-{name}) | {}: {held} of {} checks, {:.0} s, {} | {} |",
                Verdict::of(report).word(),
                report.checks.len(),
                report.seconds,
                report.servers.join(", "),
                report.figures.iter().map(figure).collect::<Vec<_>>().join("<br>"),
            );
        }
    }
    page
}

/// Every figure that has a target, of all answers: a reader of the page wants to know first what was missed.
fn targets(measured: &[Measured]) -> String {
    let mut table = "\n## Targets\n\n| answer | experiment | figure | measured | target | |\n\
                     |---|---|---|---|---|---|\n"
        .to_owned();
    let reports = measured.iter().flat_map(|one| &one.reports);
    for (report, figure) in reports.flat_map(|it| it.figures.iter().map(move |one| (it, one))) {
        let Some(target) = figure.target else { continue };
        let Report { answer, experiment, .. } = report;
        let _ = writeln!(
            table,
            "| {answer} | [`{experiment}`]({answer}.md#{answer}-{experiment}) | {} | {}\u{a0}{} | {} | {} |",
            cell(&figure.name),
            number(figure.value),
            cell(&figure.unit),
            target.to_string().replace(' ', "\u{a0}"),
            if target.met(figure.value) { "met" } else { "**missed**" },
        );
    }
    table
}

fn figure(figure: &lab::recorder::Figure) -> String {
    let mut words = format!("{}: **{}** {}", figure.name, number(figure.value), figure.unit);
    if let Some(target) = figure.target {
        let met = if target.met(figure.value) { "met" } else { "missed" };
        let _ = write!(words, " (target {target}: {met})");
    }
    cell(words.trim_end())
}

fn cell(text: &str) -> String {
    escaped(text).replace('|', "\\|")
}

impl Machine {
    fn this() -> Self {
        // Where there is no /proc, as on macOS, some of it stays unknown.
        let find = |file: &str, key: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let memory = find("/proc/meminfo", "MemTotal");
        let kib: Option<u64> = memory.and_then(|text| text.split(' ').next()?.parse().ok());
        let system = find("/etc/os-release", "PRETTY_NAME");
        Self {
            processor: find("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.unwrap_or(0).div_ceil(1024 * 1024),
            system: system.unwrap_or_else(|| std::env::consts::OS.to_owned()),
            rust: rust_version().unwrap_or_else(|| "an unknown rustc".to_owned()),
            at: OffsetDateTime::now_utc(),
        }
    }
}

/// `rustc 1.95.0`
fn rust_version() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    let words = String::from_utf8(output.stdout).ok()?;
    Some(words.split(' ').take(2).collect::<Vec<_>>().join(" "))
}
