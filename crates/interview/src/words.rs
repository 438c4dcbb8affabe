//! `cargo run -- interview …`, `quiz` and `progress …`: the commands.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command, value_parser};
use time::OffsetDateTime;

use crate::{
    choice::{Wish, memory, plan, queue},
    export::{day, export},
    progress::Progress,
    quiz::{DAILY, done_today, score, ten},
    session::Session,
    subject::Subject,
    talk::{Ended, hold, quiz},
    terminal::Terminal,
};

/// The three commands.
pub fn commands() -> [Command; 3] {
    let what = Arg::new("what").value_name("WHAT").help(
        "A question (url-shortener), a level (beginner, intermediate, advanced), or a set: \
         one-of-each, new (what you have not been asked), any (the program chooses). \
         Nothing: shows them all, and asks you",
    );
    let interview = Command::new("interview")
        .about("A mock interview with a clock and a rubric; needs no network and no microphone")
        .arg(what)
        .args_conflicts_with_subcommands(true)
        .subcommand(Command::new("results").about("Shows your results over time"))
        .subcommand(Command::new("export").about("Prints all your results as Markdown"));
    let quiz = Command::new("quiz").about(
        "Ten sentences that everybody repeats: do they hold? What you got wrong comes again",
    );
    let file = Arg::new("file").required(true).value_parser(value_parser!(PathBuf));
    let progress = Command::new("progress")
        .about("Takes your progress to another machine")
        .subcommand_required(true)
        .subcommand(Command::new("export").about("Prints it as JSON"))
        .subcommand(
            Command::new("import").about("Adds what such a file has; nothing is lost").arg(file),
        );
    [interview, quiz, progress]
}

/// Runs one of them.
pub fn run(name: &str, matches: &ArgMatches, workspace: &Path) -> anyhow::Result<ExitCode> {
    match (name, matches.subcommand()) {
        ("interview", None) => {
            let what = matches.get_one::<String>("what");
            interview(workspace, what.map(String::as_str))?;
        }
        ("interview", Some(("results", _))) => results(workspace)?,
        ("interview", Some(("export", _))) => print!("{}", export(&Progress::load(workspace)?)),
        ("quiz", _) => daily(workspace)?,
        ("progress", Some(("export", _))) => print!("{}", Progress::load(workspace)?.text()?),
        ("progress", Some(("import", matches))) => {
            let file = matches.get_one::<PathBuf>("file").context("no file")?;
            import(workspace, file)?;
        }
        (name, _) => bail!("there is no command {name}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn interview(workspace: &Path, what: Option<&str>) -> anyhow::Result<()> {
    let subjects = Subject::all(workspace)?;
    let terminal = Terminal::begin();
    match going_on(workspace, &subjects, &terminal)? {
        GoingOn::Left => return Ok(()),
        GoingOn::Ended => {}
        GoingOn::Nothing => choose(workspace, &subjects, what, &terminal)?,
    }
    while let Some(name) = Progress::change(workspace, |progress| Ok(progress.next_in_queue()))? {
        // A question that has gone is left out.
        let Some(subject) = subjects.iter().find(|it| it.name == name) else { continue };
        let kind = subject.sheet.kind;
        println!(
            "\n{} ({}, {} minutes). /pause stops the clock, /quit goes on another day.",
            subject.chapter.title,
            subject.chapter.difficulty.name(),
            kind.all_minutes()
        );
        Progress::change(workspace, |progress| {
            let session = Session::begin(subject, plan(subject, progress, now()), now());
            progress.keep(session, 0)
        })?;
        if hold(workspace, subject, &terminal)? == Ended::Left {
            return Ok(());
        }
        if let Some(next) = Progress::load(workspace)?.queue.first() {
            print!("\nThe next: {next}. Enter goes on, /quit ends. > ");
            if terminal.line(|_| {}).is_none_or(|line| line.trim() == "/quit") {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Lets the reader choose, and puts the questions into the queue.
fn choose(
    workspace: &Path,
    subjects: &[Subject],
    what: Option<&str>,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let progress = Progress::load(workspace)?;
    let what = if let Some(what) = what {
        what.to_owned()
    } else {
        list(subjects, &progress);
        print!("\nWhat shall I ask? (Enter: I choose) > ");
        let Some(line) = terminal.line(|_| {}) else { return Ok(()) };
        line
    };
    let wish: Wish = what.parse().unwrap_or(Wish::Any);
    let queue = queue(&wish, subjects, &progress, now());
    if queue.is_empty() {
        bail!("there is nothing to ask for {what:?}: `cargo run -- interview` lists the questions");
    }
    let names = queue.iter().map(|subject| subject.name.clone()).collect();
    Progress::change(workspace, |progress| {
        progress.queue = names;
        Ok(())
    })
}

/// What became of an interview of before.
enum GoingOn {
    /// There was none, or the reader gave it up.
    Nothing,
    /// The reader took it to its end.
    Ended,
    /// The reader has left it again.
    Left,
}

fn going_on(
    workspace: &Path,
    subjects: &[Subject],
    terminal: &Terminal,
) -> anyhow::Result<GoingOn> {
    let Some(session) = Progress::load(workspace)?.current else { return Ok(GoingOn::Nothing) };
    let subject = subjects.iter().find(|subject| subject.name == session.answer);
    let title = subject.map_or(&session.answer, |subject| &subject.chapter.title);
    println!("You are in an interview of {}: {title}.", day(session.begun));
    print!("Enter goes on with it; /drop gives it up. > ");
    let Some(line) = terminal.line(|_| {}) else { return Ok(GoingOn::Left) };
    if line.trim() == "/drop" {
        Progress::change(workspace, |progress| {
            progress.current = None;
            progress.queue.clear();
            Ok(())
        })?;
        return Ok(GoingOn::Nothing);
    }
    let subject = subject.with_context(|| {
        format!("there is no question {} any more; /drop gives the interview up", session.answer)
    })?;
    Ok(match hold(workspace, subject, terminal)? {
        Ended::Finished => GoingOn::Ended,
        Ended::Left => GoingOn::Left,
    })
}

fn list(subjects: &[Subject], progress: &Progress) {
    for subject in subjects {
        let last = progress.interviews_of(&subject.name).next_back();
        let last = last.map_or_else(
            || "not asked yet".to_owned(),
            |last| {
                let is_due = memory(subject, progress, now()).is_some_and(|it| it.is_due(now()));
                let due = if is_due { ", due again" } else { "" };
                format!("{} on {}{due}", last.level_in_words(), day(last.begun))
            },
        );
        println!(
            "  {:<20} {:<13} {:>2} min  {last}",
            subject.name,
            subject.chapter.difficulty.name(),
            subject.sheet.kind.all_minutes(),
        );
    }
    println!("\nOr a set: beginner, intermediate, advanced, one-of-each, new.");
}

fn results(workspace: &Path) -> anyhow::Result<()> {
    let progress = Progress::load(workspace)?;
    for one in &progress.interviews {
        let share = 100.0 * one.share();
        let level = one.level_in_words();
        println!("{}  {:<20} {level:<13} {share:>3.0} %", day(one.begun), one.answer);
    }
    let subjects = Subject::all(workspace)?;
    let score = score(&subjects, &progress, now());
    println!(
        "{} interviews. Of {} sentences, {} judged, {} of them rightly the last time, {} due.",
        progress.interviews.len(),
        score.all,
        score.judged,
        score.right,
        score.due,
    );
    Ok(())
}

fn daily(workspace: &Path) -> anyhow::Result<()> {
    let subjects = Subject::all(workspace)?;
    let progress = Progress::load(workspace)?;
    let done = done_today(&progress, now());
    if done >= DAILY {
        println!("You have judged {done} sentences today. Here are more.");
    }
    let questions = ten(&subjects, &progress, now());
    println!("Everybody says it. Does it hold? /quit ends the quiz.");
    if quiz(workspace, &questions, &Terminal::begin())? == Ended::Finished {
        let score = score(&subjects, &Progress::load(workspace)?, now());
        println!("In all: {} of {} sentences right the last time.", score.right, score.all);
    }
    Ok(())
}

fn import(workspace: &Path, file: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let other = Progress::parse(&text)
        .with_context(|| format!("{} is no exported progress", file.display()))?;
    let (before, after) = Progress::change(workspace, |progress| {
        let before = progress.interviews.len();
        progress.merge(other);
        Ok((before, progress.interviews.len()))
    })?;
    println!("{} interviews, {} of them new.", after, after - before);
    Ok(())
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
