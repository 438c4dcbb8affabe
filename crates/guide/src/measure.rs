//! How are the recorded results made? `cargo run --release -- measure` runs every experiment several times and writes
//! the results to `measured.json` in the folder of its answer, which is committed.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use lab::{Answer, Experiment, Report, code::Code, report::number, serve};
use tokio::{select, sync::mpsc::unbounded_channel};

use crate::{
    languages,
    machine::output,
    numbers,
    record::{Measured, Recorded},
    render::Verdict,
};

/// The command `measure` and its options.
pub fn command(answers: &[Answer]) -> Command {
    let names = PossibleValuesParser::new(answers.iter().map(|answer| answer.name));
    let flag = |name, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("measure")
        .about("Runs every experiment several times and records medians for the page `Measured`")
        .arg(Arg::new("answer").num_args(0..).value_parser(names).help("Only these answers'"))
        .arg(
            Arg::new("experiment")
                .long("experiment")
                .action(ArgAction::Append)
                .help("Only this one; can be given several times"),
        )
        .arg(
            Arg::new("runs")
                .long("runs")
                .default_value("5")
                .value_parser(value_parser!(u32).range(1..=100))
                .help("How often to run each"),
        )
        .arg(flag(
            "force",
            "Also records a result that is worse than the record, or has fewer runs",
        ))
        .arg(
            Arg::new("into")
                .long("into")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .help("Records in FOLDER/ANSWER.json, and leaves the answers' own records alone"),
        )
        .arg(flag(
            "languages",
            "Not the experiments, but the same answers in Rust, Python and Node, for the page with their ratios",
        ))
        .arg(flag("chapters", "Runs nothing; writes the recorded numbers into the chapters"))
}

/// Runs what [`command`] parsed. The exit code is 1 if a claim did not hold.
pub async fn run(answers: &[Answer], matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut answers = answers.to_vec();
    if let Some(names) = matches.get_many::<String>("answer") {
        let names: Vec<_> = names.collect();
        answers.retain(|answer| names.iter().any(|name| *name == answer.name));
    }
    if matches.get_flag("chapters") {
        return update_chapters(&answers);
    }
    let into = matches.get_one::<PathBuf>("into").cloned();
    if cfg!(debug_assertions) && into.is_none() {
        bail!("a debug build measures nothing worth keeping: cargo run --release -- measure");
    }
    let only = matches.get_many::<String>("experiment");
    let only: Option<Vec<String>> = only.map(|names| names.cloned().collect());
    let languages = matches.get_flag("languages");
    let mut chosen = if languages { languages::experiments(&answers) } else { all(&answers) };
    if let Some(names) = only {
        chosen.retain(|(_, experiment)| names.iter().any(|name| name == experiment.name));
    }
    let measuring = Measuring {
        runs: matches.get_one("runs").copied().unwrap_or(1),
        commit: commit(),
        force: matches.get_flag("force"),
        into,
        languages,
    };
    let good = measuring.all(chosen).await?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the recorded numbers into the chapters that quote them. The author then has to read the changes, because the
/// words around a number may be wrong now.
fn update_chapters(answers: &[Answer]) -> anyhow::Result<ExitCode> {
    for answer in answers {
        let path = PathBuf::from(answer.folder).join("chapter.md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let updated = numbers::update(&text, &Measured::read(&Measured::path(answer))?);
        if updated != text {
            fs::write(&path, updated).with_context(|| path.display().to_string())?;
            println!(
                "{} has new numbers: read `git diff`, for the words around them",
                path.display()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How each experiment is measured.
struct Measuring {
    runs: u32,
    commit: String,
    force: bool,
    into: Option<PathBuf>,
    /// Whether it is not an experiment, but a comparison of programs in several languages.
    languages: bool,
}

/// Every experiment of these answers.
fn all(answers: &[Answer]) -> Vec<(&Answer, Experiment)> {
    let of = |answer| {
        let Answer { experiments, .. }: &Answer = answer;
        experiments.iter().map(move |experiment| (answer, experiment.clone()))
    };
    answers.iter().flat_map(of).collect()
}

impl Measuring {
    /// Measures and records one experiment after another. Says whether every claim held.
    async fn all(&self, chosen: Vec<(&Answer, Experiment)>) -> anyhow::Result<bool> {
        // One listener for all runs, so that a Ctrl-C between two runs counts too.
        let mut stop = pin!(serve::asked_to_stop());
        ensure!(!chosen.is_empty(), "there is no such experiment");
        for (answer, _) in &chosen {
            ensure_current(answer)?;
        }
        let (mut good, mut done) = (true, 0);
        for (answer, experiment) in chosen {
            let Some(runs) = self.runs_of(answer, &experiment, stop.as_mut()).await? else {
                bail!("stopped; {done} experiments were measured before, and are recorded");
            };
            good &= self.record(answer, &runs)?;
            done += 1;
        }
        Ok(good)
    }

    /// Runs one experiment several times. `None` if it was stopped.
    async fn runs_of(
        &self,
        answer: &Answer,
        experiment: &Experiment,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<Option<Vec<Report>>> {
        let mut runs = Vec::new();
        for run in 1..=self.runs {
            let (events, _unread) = unbounded_channel();
            let report = select! {
                // On a stop the run is dropped, and everything that it started ends with it.
                () = stop.as_mut() => return Ok(None),
                report = experiment.run(answer, &[], events) => report?,
            };
            let (verdict, seconds) = (Verdict::of(&report).word(), report.seconds);
            let (of, name) = (answer.name, experiment.name);
            eprintln!("  {of} {name}, run {run} of {}: {verdict}, {seconds:.1} s", self.runs);
            let skipped = report.skipped.is_some();
            runs.push(report);
            // If it cannot run here, further runs would be skipped too.
            if skipped {
                break;
            }
        }
        Ok(Some(runs))
    }

    /// Where the results of this answer are kept.
    fn path(&self, answer: &Answer) -> PathBuf {
        let name = if self.languages { "languages" } else { answer.name };
        match &self.into {
            Some(folder) => folder.join(format!("{name}.json")),
            None if self.languages => languages::path(),
            None => Measured::path(answer),
        }
    }

    /// Records and prints the result of an experiment. Keeps the old record if that is better. Returns whether the
    /// claim held or the experiment was skipped.
    fn record(&self, answer: &Answer, runs: &[Report]) -> anyhow::Result<bool> {
        let new = Recorded::of(runs, &self.commit)?;
        let path = self.path(answer);
        let mut measured = Measured::read(&path)?;
        let old = measured.of(&new.report.experiment).filter(|_| !self.force);
        let worse = old.and_then(|old| new.worse_than(old));
        if worse.is_none() {
            if let Some(folder) = &self.into {
                fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            }
            measured.put(new.clone());
            measured.write(&path)?;
        }
        tell(answer, &new, runs);
        if let Some(why) = worse {
            println!("  not recorded: {why}; --force records it anyway");
        }
        Ok(matches!(Verdict::of(&new.report), Verdict::Held | Verdict::Skipped))
    }
}

/// An error if the answer's code was changed after this program was built: the figures would be those of the old code.
fn ensure_current(answer: &Answer) -> anyhow::Result<()> {
    let code = Code::of(Path::new(answer.folder))
        .with_context(|| format!("cannot read the code of {}", answer.name))?;
    let release = if cfg!(debug_assertions) { "" } else { "--release " };
    ensure!(
        code.is_in_this_program(),
        "the code of {} was changed after this program was built, so this program would measure the old code. \
         Nothing was measured. Build it and measure with\n\n    cargo run {release}-- measure\n",
        answer.name
    );
    Ok(())
}

/// Prints the result of an experiment: its verdict, what failed, and which figure missed its target.
fn tell(answer: &Answer, new: &Recorded, runs: &[Report]) {
    let Report { experiment, checks, figures, error, skipped, .. } = &new.report;
    let (verdict, held) = (Verdict::of(&new.report), runs.iter().filter(|run| run.held()).count());
    let verdict = verdict.word();
    println!("{} {experiment}: {verdict}; {held} of {} runs held", answer.name, runs.len());
    for why in error.iter().chain(skipped) {
        println!("  {why}");
    }
    for check in checks.iter().filter(|check| !check.held) {
        println!("  failed: {}: expected {}, seen {}", check.check, check.expected, check.seen);
    }
    for figure in figures {
        let Some(target) = figure.target.filter(|target| !target.met(figure.value)) else {
            continue;
        };
        let (name, value, unit) = (&figure.name, number(figure.value), &figure.unit);
        println!("  missed: {name}: {value} {unit}, where the target is {target}");
    }
}

/// The commit that is measured, and whether the working tree has changes. The files that measuring writes do not count.
fn commit() -> String {
    let Some(commit) = output("git", &["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changes = output(
        "git",
        &["status", "--porcelain", "--", ":/", ":(exclude,top)crates/*/measured.json"],
    );
    if changes.is_some() { commit + ", changed" } else { commit }
}
