//! How is an interview held in a terminal? Step by step; each answer is kept at once, so that nothing is lost.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context;
use time::OffsetDateTime;

use crate::{
    chapter::Verdict,
    export::for_terminal,
    outcome::Outcome,
    progress::Progress,
    quiz::Question,
    screen::{Say, Screen, Wants, clock_in_words, judged, nudge, verdicts},
    session::{Input, Session},
    sheet::Stage,
    subject::Subject,
    terminal::Terminal,
};

/// How an interview or a quiz ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It came to its end.
    Finished,
    /// The reader has gone, and may come back.
    Left,
}

/// What the reader typed.
enum Typed {
    Input(Input),
    Pause,
    Left,
}

/// Leads the reader through the interview that goes on in this workspace, from where it is.
pub fn hold(workspace: &Path, subject: &Subject, terminal: &Terminal) -> anyhow::Result<Ended> {
    let mut session = Progress::load(workspace)?.current.context("no interview goes on")?;
    session.come_back(subject, now());
    let mut nudged = None;
    while !session.is_over(subject) {
        let screen = session.screen(subject);
        terminal.show(&screen);
        let taken = session.taken;
        if !session.draft.is_empty() {
            println!("You have written so far:\n{}", session.draft);
        }
        loop {
            match typed(&screen.wants, &mut session, subject, terminal, &mut nudged) {
                Typed::Left => {
                    session.pause(now());
                    Progress::change(workspace, |progress| progress.keep(session, taken))?;
                    println!("\nYour interview is kept. `cargo run -- interview` goes on with it.");
                    return Ok(Ended::Left);
                }
                Typed::Pause => pause(&mut session, subject, terminal),
                Typed::Input(input) => match session.take(subject, &input, now()) {
                    Ok(()) => break,
                    Err(refused) => println!("{refused}"),
                },
            }
        }
        Progress::change(workspace, |progress| progress.keep(session.clone(), taken))?;
    }
    let outcome = Outcome::of(&session, subject, now());
    let before = Progress::change(workspace, |progress| {
        let before = progress.interviews_of(&subject.name).next_back().cloned();
        progress.finish(outcome.clone());
        Ok(before)
    })?;
    println!("\n== {}: the result\n", subject.chapter.title);
    println!("{}", for_terminal(&outcome, before.as_ref()));
    println!("\nKept. `cargo run -- interview export` writes all of your results as Markdown.");
    Ok(Ended::Finished)
}

/// Waits for an answer of the kind that is wanted.
fn typed(
    wants: &Wants,
    session: &mut Session,
    subject: &Subject,
    terminal: &Terminal,
    nudged: &mut Option<Stage>,
) -> Typed {
    loop {
        prompt(session, subject);
        let tick = |terminal: &Terminal| {
            if let Some(clock) = clock_in_words(session, subject, now()) {
                terminal.title(&clock);
            }
            if let Some((stage, words)) = nudge(session, subject, now())
                && *nudged != Some(stage)
            {
                *nudged = Some(stage);
                println!("\n  » {words}");
            }
        };
        let Some(line) = terminal.line(tick) else { return Typed::Left };
        match (line.trim(), wants) {
            ("/quit", _) => return Typed::Left,
            ("/pause", _) => return Typed::Pause,
            ("", Wants::Text) => return Typed::Input(Input::Text(session.draft.clone())),
            (_, Wants::Text) => session.draft += &format!("{line}\n"),
            (line, Wants::Number) => return Typed::Input(Input::Text(line.to_owned())),
            (line, Wants::Ticks(_)) => match ticks(line) {
                Ok(ticks) => return Typed::Input(Input::Ticks(ticks)),
                Err(word) => {
                    println!("{word:?} is no number: write the numbers as 1 3, or nothing");
                }
            },
            (line, Wants::Choice(items)) => match choice(line) {
                Some(choice) => return Typed::Input(Input::Choice(choice)),
                None => println!("choose a number from 1 to {}", items.len()),
            },
            (_, Wants::Aloud | Wants::Next | Wants::Nothing) => return Typed::Input(Input::Next),
        }
    }
}

/// The clock stands before each line that the reader types.
fn prompt(session: &Session, subject: &Subject) {
    match clock_in_words(session, subject, now()) {
        Some(clock) => print!("[{clock}] > "),
        None => print!("> "),
    }
}

fn pause(session: &mut Session, subject: &Subject, terminal: &Terminal) {
    session.pause(now());
    println!("The clock stands. Enter goes on.");
    terminal.title("paused");
    let _ = terminal.line(|_| {});
    session.resume(subject, now());
}

/// The numbers in a line, from 0.
fn ticks(line: &str) -> Result<BTreeSet<usize>, String> {
    let words = line.split([' ', ',', ';']).filter(|word| !word.is_empty());
    words.map(|word| choice(word).ok_or_else(|| word.to_owned())).collect()
}

/// The number in a line, from 0.
fn choice(line: &str) -> Option<usize> {
    line.trim().parse::<usize>().ok()?.checked_sub(1)
}

/// Asks these sentences one by one.
pub fn quiz(
    workspace: &Path,
    questions: &[Question],
    terminal: &Terminal,
) -> anyhow::Result<Ended> {
    let mut right = 0;
    for (at, Question { subject, sentence }) in questions.iter().enumerate() {
        let asked = Screen {
            heading: format!("{} of {}: {}", at + 1, questions.len(), subject.chapter.title),
            says: vec![Say::Interviewer(format!("“{}”", sentence.says))],
            wants: verdicts(),
        };
        terminal.show(&asked);
        let said = loop {
            print!("> ");
            let Some(line) = terminal.line(|_| {}) else { return Ok(Ended::Left) };
            if line.trim() == "/quit" {
                return Ok(Ended::Left);
            }
            match choice(&line).and_then(|choice| Verdict::ALL.get(choice).copied()) {
                Some(said) => break said,
                None => println!("1, 2 or 3; /quit ends the quiz"),
            }
        };
        let is_right = said == sentence.verdict;
        right += usize::from(is_right);
        Progress::change(workspace, |progress| {
            let judged = crate::progress::judged(
                &subject.name,
                &sentence.says,
                said,
                sentence.verdict,
                now(),
            );
            progress.judged.push(judged);
            Ok(())
        })?;
        let is_last = at + 1 == questions.len();
        terminal.show(&Screen {
            heading: judged(is_right).to_owned(),
            says: subject.verdict_shown(sentence)[1..].to_vec(),
            wants: if is_last { Wants::Nothing } else { Wants::Next },
        });
        if !is_last && terminal.line(|_| {}).is_none_or(|line| line.trim() == "/quit") {
            return Ok(Ended::Left);
        }
    }
    println!("{right} of {} right.", questions.len());
    Ok(Ended::Finished)
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_numbers_from_one() {
        assert_eq!(ticks("1, 3 2"), Ok([0, 1, 2].into()));
        assert_eq!(ticks(""), Ok(BTreeSet::new()));
        assert_eq!(ticks("1 x"), Err("x".to_owned()));
        assert_eq!(ticks("0"), Err("0".to_owned()));
    }
}
