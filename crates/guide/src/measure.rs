//! What came of every experiment, on which machine? `cargo run --release -- measure` runs them all and writes the
//! results of each answer to `measured.json` in its folder, which is committed; the book shows them on a page.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use lab::{
    Answer, Report,
    report::{escaped, number},
    results,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::mpsc::unbounded_channel;

use crate::render::{Verdict, day_and_time};

/// All of one answer's experiments, run one after another.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
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

fn path(answer: &Answer) -> PathBuf {
    Path::new(answer.folder).join("measured.json")
}

/// Runs every experiment of these answers with its default parameters and writes the results down. Says whether
/// every claim held.
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
        let measured = Measured { machine: Machine::this(), reports };
        let path = path(answer);
        fs::write(&path, serde_json::to_string_pretty(&measured)? + "\n")
            .with_context(|| path.display().to_string())?;
    }
    Ok(good)
}

/// What was measured of an answer. Nothing if that was never done.
fn read(answer: &Answer) -> anyhow::Result<Option<Measured>> {
    let path = path(answer);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// What was recorded of an answer's experiments, and before it when and on which machine. Nothing if there is none that
/// can be read.
pub fn recorded(answer: &Answer) -> Option<(String, Vec<Report>)> {
    let Measured { machine, reports } = read(answer).ok()??;
    let Machine { processor, cores, at, .. } = machine;
    Some((format!("{}, {processor}, {cores} cores", day_and_time(at)), reports))
}

/// The page.
pub fn page(answers: &[Answer], problems: &mut Vec<String>) -> String {
    let mut measured = Vec::new();
    for answer in answers {
        match read(answer) {
            Ok(one) => measured.extend(one.map(|one| (answer.name, one))),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    let mut page = "# Measured\n\nEvery experiment with its default parameters in a release build, as `cargo run \
                    --release -- measure` wrote it down, the servers and the load on the same machine. Yours will \
                    differ: run it, and see by how much.\n"
        .to_owned();
    let reports = || measured.iter().flat_map(|(_, one)| &one.reports);
    for answer in answers {
        for experiment in &answer.experiments {
            let (of, name) = (answer.name, experiment.name);
            if !reports().any(|it| it.answer == of && it.experiment == name) {
                problems.push(format!("{of} {name} was never measured: `measure {of}` does it"));
            }
        }
    }
    page += &targets(reports());
    for (answer, Measured { machine, reports }) in &measured {
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
fn targets<'a>(reports: impl Iterator<Item = &'a Report>) -> String {
    let mut table = "\n## Targets\n\n| answer | experiment | figure | measured | target | |\n\
                     |---|---|---|---|---|---|\n"
        .to_owned();
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
        let Found { processor, memory, system } =
            if cfg!(target_os = "macos") { Found::on_macos() } else { Found::on_linux() };
        let unknown = || "unknown".to_owned();
        Self {
            processor: processor.unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory.unwrap_or_default().div_ceil(1 << 30),
            system: system.unwrap_or_else(|| std::env::consts::OS.to_owned()),
            rust: rust_version().unwrap_or_else(unknown),
            at: OffsetDateTime::now_utc(),
        }
    }
}

/// What the system says of the machine, where it can be asked.
struct Found {
    processor: Option<String>,
    /// In bytes.
    memory: Option<u64>,
    system: Option<String>,
}

impl Found {
    fn on_linux() -> Self {
        let find = |file: &str, key: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let kib = find("/proc/meminfo", "MemTotal");
        let kib: Option<u64> = kib.and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            processor: find("/proc/cpuinfo", "model name"),
            memory: kib.map(|kib| kib * 1024),
            system: find("/etc/os-release", "PRETTY_NAME"),
        }
    }

    fn on_macos() -> Self {
        let bytes = output("sysctl", &["-n", "hw.memsize"]);
        let version = output("sw_vers", &["-productVersion"]);
        Self {
            processor: output("sysctl", &["-n", "machdep.cpu.brand_string"]),
            memory: bytes.and_then(|bytes| bytes.parse().ok()),
            system: version.map(|version| format!("macOS {version}")),
        }
    }
}

/// `rustc 1.95.0`
fn rust_version() -> Option<String> {
    let words = output("rustc", &["--version"])?;
    Some(words.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// What a program prints, without the line's end.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
