//! `cargo run -- interview …`, `quiz` and `progress …`: the commands.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::{
    choice::{Wish, memory, queue},
    export::{day, export},
    now,
    progress::Progress,
    quiz::{DAILY, done_today, score, ten},
    screen::Wants,
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
            Command::new("import")
                .about("Adds what such a file has to what is here. Exercises are not in it")
                .arg(file),
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
    let mut what = what.map(str::to_owned);
    if let Some(what) = &what {
        // At once, and not after an interview of three quarters of an hour.
        known(what, &subjects, &Progress::load(workspace)?)?;
    }
    let mut ended = match going_on(workspace, &subjects, &mut what, &terminal)? {
        GoingOn::Left => return Ok(()),
        GoingOn::Ended => true,
        GoingOn::Nothing => false,
    };
    loop {
        let progress = Progress::load(workspace)?;
        let next = progress.next_of_set(&subjects).filter(|_| what.is_none());
        let goes_on = match next {
            Some(next) => {
                print!(
                    "\nThe next of your set: {}. Enter goes on, /new chooses something else, /quit ends. > ",
                    next.chapter.title
                );
                match terminal.line(|_| {}).as_deref().map(str::trim) {
                    None | Some("/quit") => return Ok(()),
                    Some(line) => line != "/new",
                }
            }
            None if ended && what.is_none() => return Ok(()),
            None => false,
        };
        let wish = if goes_on {
            None
        } else {
            let wish = choose(&subjects, &progress, what.take().as_deref(), &terminal)?;
            let Some(wish) = wish else { return Ok(()) };
            Some(wish)
        };
        let begun = Progress::change(workspace, |progress| {
            match &wish {
                Some(wish) => {
                    progress.begin(wish, &subjects, now());
                }
                None => progress.begin_next(&subjects, now()),
            }
            Ok(progress.current.clone())
        })?;
        let begun = begun.and_then(|it| subjects.iter().find(|subject| subject.name == it.answer));
        let subject = begun.context("the question has gone: run the command again")?;
        println!(
            "\n{} ({}, {} minutes). /pause stops the clock, /quit goes on another day.",
            subject.chapter.title,
            subject.chapter.difficulty.name(),
            subject.sheet.kind.all_minutes()
        );
        if hold(workspace, subject, &terminal)? == Ended::Left {
            return Ok(());
        }
        ended = true;
    }
}

/// Lets the reader choose; nothing if they leave.
fn choose(
    subjects: &[Subject],
    progress: &Progress,
    what: Option<&str>,
    terminal: &Terminal,
) -> anyhow::Result<Option<Wish>> {
    if let Some(what) = what {
        return known(what, subjects, progress).map(Some);
    }
    list(subjects, progress);
    loop {
        print!("\nWhat shall I ask? (Enter: I choose) > ");
        let Some(line) = terminal.line(|_| {}) else { return Ok(None) };
        if line.trim() == "/quit" {
            return Ok(None);
        }
        let wish = Wish::from(&*line);
        if !queue(&wish, subjects, progress, now()).is_empty() {
            return Ok(Some(wish));
        }
        println!(
            "There is nothing to ask for {:?}: type a name of the list, or a set.",
            line.trim()
        );
    }
}

/// The wish in these words. It is an error if there is nothing to ask for it.
fn known(what: &str, subjects: &[Subject], progress: &Progress) -> anyhow::Result<Wish> {
    let wish = Wish::from(what);
    ensure!(
        !queue(&wish, subjects, progress, now()).is_empty(),
        "there is nothing to ask for {what:?}: `cargo run -- interview` lists the questions"
    );
    Ok(wish)
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

/// Goes on with an interview of before. `what` the reader wants to be asked comes after it; if it is what goes on, it is
/// taken.
fn going_on(
    workspace: &Path,
    subjects: &[Subject],
    what: &mut Option<String>,
    terminal: &Terminal,
) -> anyhow::Result<GoingOn> {
    let Some(session) = Progress::load(workspace)?.current else { return Ok(GoingOn::Nothing) };
    let subject = subjects.iter().find(|subject| subject.name == session.answer);
    let title = subject.map_or(&session.answer, |subject| &subject.chapter.title);
    println!("You are in an interview of {}: {title}.", day(session.begun));
    if what.as_deref() == Some(&*session.answer) {
        *what = None;
    }
    if let Some(what) = what.as_deref() {
        println!("{what} follows when it has ended, or when you give it up.");
    }
    print!("Enter goes on with it; /drop gives it up. > ");
    let Some(mut line) = terminal.line(|_| {}) else { return Ok(GoingOn::Left) };
    if line.trim() == "/drop" {
        print!(
            "All that you said in it is lost. /drop once more gives it up; Enter goes on with it. > "
        );
        let Some(again) = terminal.line(|_| {}) else { return Ok(GoingOn::Left) };
        if again.trim() == "/drop" {
            Progress::change(workspace, |progress| {
                progress.give_up();
                Ok(())
            })?;
            return Ok(GoingOn::Nothing);
        }
        line = again;
    }
    let subject = subject.with_context(|| {
        format!(
            "there is no question {} any more: run the command again, and give the interview up with /drop",
            session.answer
        )
    })?;
    match line.trim() {
        "" => {}
        "/quit" => return Ok(GoingOn::Left),
        words => take_words(workspace, subject, &session, words)?,
    }
    Ok(match hold(workspace, subject, terminal)? {
        Ended::Finished => GoingOn::Ended,
        Ended::Left => GoingOn::Left,
    })
}

/// The reader did not only press Enter. Words belong to the answer of this step, if it takes words; otherwise the reader
/// hears that they were not taken.
fn take_words(
    workspace: &Path,
    subject: &Subject,
    session: &Session,
    words: &str,
) -> anyhow::Result<()> {
    if session.screen(subject).wants != Wants::Text || words.starts_with('/') {
        println!("{words:?} was not taken. Answer here:");
        return Ok(());
    }
    println!("This is now a line of your answer: {words}");
    Progress::change(workspace, |progress| {
        let here = |known: &&mut Session| known.place() == session.place();
        if let Some(known) = progress.current.as_mut().filter(here) {
            known.draft += &format!("{words}\n");
        }
        Ok(())
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
        "{} interviews. Of {} sentences, {} judged; {} were right the last time, {} are due again.",
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
    let other = Progress::parse(&text).with_context(|| {
        format!("{} is not a file that `progress export` wrote", file.display())
    })?;
    println!("{}", Progress::change(workspace, |progress| Ok(progress.import(other)))?);
    Ok(())
}
