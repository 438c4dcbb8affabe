//! How is an interview held in a terminal? Step by step; each line is kept at once, so that a closed window loses
//! nothing.

use std::{collections::BTreeSet, path::Path};

use crate::{
    chapter::Verdict,
    export::for_terminal,
    now,
    outcome::Outcome,
    progress::Progress,
    quiz::Question,
    screen::{Say, Screen, Wants, clock_in_words, judged, nudge, verdicts},
    session::{Input, Session},
    sheet::Stage,
    subject::Subject,
    terminal::Terminal,
};
use anyhow::Context;

/// How an interview or a quiz ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It came to its end.
    Finished,
    /// The reader has gone, and may come back.
    Left,
}

/// While nothing is typed, the time is kept this often: a killed program loses no more of the clock.
const KEPT_EVERY: time::Duration = time::Duration::seconds(15);

/// An interview that is held in a terminal.
struct Talk<'a> {
    workspace: &'a Path,
    subject: &'a Subject,
    terminal: &'a Terminal,
    session: Session,
    /// The stage whose end was announced.
    nudged: Option<Stage>,
}

/// Leads the reader through the interview that goes on in this workspace, from where it is.
pub fn hold(workspace: &Path, subject: &Subject, terminal: &Terminal) -> anyhow::Result<Ended> {
    let mut session = Progress::load(workspace)?.current.context("no interview goes on")?;
    session.come_back(now());
    let mut talk = Talk { workspace, subject, terminal, session, nudged: None };
    talk.keep(talk.session.taken)?;
    while !talk.session.is_over() {
        let screen = talk.session.screen(subject);
        terminal.show(&screen);
        if !talk.session.draft.is_empty() {
            println!("You have written so far:\n{}", talk.session.draft);
        }
        if talk.step(&screen.wants)? == Ended::Left {
            talk.session.pause(now());
            talk.keep(talk.session.taken)?;
            println!("\nYour interview is kept. `cargo run -- interview` goes on with it.");
            return Ok(Ended::Left);
        }
    }
    let outcome = Outcome::of(&talk.session, subject, now());
    let before = Progress::change(workspace, |progress| {
        let before = progress.interviews_of(&subject.name).next_back().cloned();
        progress.finish(outcome.clone())?;
        Ok(before)
    })?;
    println!("\n== {}: the result\n", subject.chapter.title);
    println!("{}", for_terminal(&outcome, before.as_ref()));
    println!("\nKept. `cargo run -- interview export` writes all of your results as Markdown.");
    Ok(Ended::Finished)
}

impl Talk<'_> {
    /// Takes this step, or learns that the reader leaves.
    fn step(&mut self, wants: &Wants) -> anyhow::Result<Ended> {
        while let Some(input) = self.typed(wants)? {
            let taken = self.session.taken;
            match self.session.take(self.subject, &input, now()) {
                Ok(()) => {
                    self.keep(taken)?;
                    return Ok(Ended::Finished);
                }
                Err(refused) => println!("{refused}"),
            }
        }
        Ok(Ended::Left)
    }

    /// Waits for an answer of the kind that is wanted; nothing if the reader leaves.
    fn typed(&mut self, wants: &Wants) -> anyhow::Result<Option<Input>> {
        loop {
            self.prompt();
            let terminal = self.terminal;
            let Some(line) = terminal.line(|_| self.tick()) else { return Ok(None) };
            self.session.here(now());
            let input = match (line.trim(), wants) {
                ("/quit", _) => return Ok(None),
                ("/pause", _) => {
                    if self.pause()? == Ended::Left {
                        return Ok(None);
                    }
                    continue;
                }
                (".", Wants::Text) => Input::Text(self.session.draft.clone()),
                // The reader only speaks. After the first words, an empty line is one between paragraphs.
                ("", Wants::Text) if self.session.draft.is_empty() => Input::Next,
                (_, Wants::Text) => {
                    self.session.draft += &format!("{line}\n");
                    self.keep(self.session.taken)?;
                    continue;
                }
                (line, Wants::Number) => Input::Text(line.to_owned()),
                (line, Wants::Ticks(_)) => match ticks(line) {
                    Ok(ticks) => Input::Ticks(ticks),
                    Err(word) => {
                        println!("{word:?} is no number: write the numbers as 1 3, or nothing");
                        continue;
                    }
                },
                (line, Wants::Choice(items)) => {
                    let Some(choice) = choice(line) else {
                        println!("choose a number from 1 to {}", items.len());
                        continue;
                    };
                    Input::Choice(choice)
                }
                (_, Wants::Aloud | Wants::Next | Wants::Nothing) => Input::Next,
            };
            return Ok(Some(input));
        }
    }

    /// The clock is shown before each line that the reader types.
    fn prompt(&self) {
        match clock_in_words(&self.session, self.subject, now()) {
            Some(clock) => print!("[{clock}] > "),
            None => print!("> "),
        }
    }

    /// What happens each second while the reader thinks.
    fn tick(&mut self) {
        if let Some(clock) = clock_in_words(&self.session, self.subject, now()) {
            self.terminal.title(&clock);
        }
        if let Some((stage, words)) = nudge(&self.session, self.subject, now())
            && self.nudged != Some(stage)
        {
            self.nudged = Some(stage);
            println!("\n  » {words}");
        }
        if now() - self.session.seen >= KEPT_EVERY {
            self.session.here(now());
            let place = self.session.place();
            // Only the time: a page may have a newer draft of this step. If this fails, the next line that the reader
            // types says why.
            let _ = Progress::change(self.workspace, |progress| {
                let known = progress.current.as_mut().filter(|known| known.place() == place);
                if let Some(known) = known {
                    known.here(now());
                }
                Ok(())
            });
        }
    }

    fn pause(&mut self) -> anyhow::Result<Ended> {
        self.session.pause(now());
        self.keep(self.session.taken)?;
        println!("The clock is stopped. Enter goes on.");
        self.terminal.title("paused");
        let line = self.terminal.line(|_| {});
        if line.is_none_or(|line| line.trim() == "/quit") {
            return Ok(Ended::Left);
        }
        self.session.resume(now());
        self.keep(self.session.taken)?;
        Ok(Ended::Finished)
    }

    /// Keeps the interview as it is now. In the file it had taken so many inputs.
    fn keep(&self, taken: usize) -> anyhow::Result<()> {
        let session = self.session.clone();
        Progress::change(self.workspace, |progress| progress.keep(session, taken))
    }
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
