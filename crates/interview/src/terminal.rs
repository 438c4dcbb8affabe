//! How does a program talk with a reader in a terminal? It prints, and waits for a line, while the clock goes on.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use crate::{
    markdown::plain,
    screen::{Say, Screen, Wants},
    subject::command,
};

/// Lines are not longer than this.
const WIDTH: usize = 96;

/// The reader's terminal; or a pipe, which a test writes to.
pub struct Terminal {
    lines: Receiver<String>,
    is_live: bool,
}

impl Terminal {
    /// Begins to read lines.
    pub fn begin() -> Self {
        // Only one line waits; the next is read when this one was taken.
        let (send, lines) = sync_channel(1);
        // Waits for a line as long as the program lives; nothing else reads the input.
        thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                let Ok(line) = line else { return };
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines, is_live: io::stdout().is_terminal() }
    }

    /// The next line; nothing when the input has ended. `tick` is called every second meanwhile.
    pub fn line(&self, mut tick: impl FnMut(&Self)) -> Option<String> {
        let _ = io::stdout().flush();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => return Some(line),
                Err(RecvTimeoutError::Timeout) => tick(self),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Shows these words in the window's title, where they disturb nothing that is being typed.
    pub fn title(&self, words: &str) {
        if self.is_live {
            print!("\x1b]0;{words}\x07");
            let _ = io::stdout().flush();
        }
    }

    /// Prints a screen, and what the reader is to do.
    pub fn show(&self, screen: &Screen) {
        println!("\n{}", heading(&screen.heading, self.is_live));
        for say in &screen.says {
            println!("\n{}", said(say));
        }
        println!("\n{}", wanted(&screen.wants));
    }
}

fn heading(words: &str, is_live: bool) -> String {
    if is_live { format!("\x1b[1m{words}\x1b[0m") } else { format!("== {words}") }
}

/// A piece of a screen as plain text.
fn said(say: &Say) -> String {
    match say {
        Say::Text(text) => wrapped(&plain(text), ""),
        Say::Interviewer(text) => wrapped(&plain(text), "  » "),
        Say::Own(text) => format!("You wrote:\n{}", wrapped(text, "  | ")),
        Say::List(lines) => {
            let lines = lines.iter().map(|line| wrapped(&plain(line), "  - "));
            lines.collect::<Vec<_>>().join("\n")
        }
        Say::Folded { summary, text } => {
            format!("{summary}:\n{}", wrapped(&plain(text), "  "))
        }
        Say::Diagram(source) => {
            let lines = source.lines().filter(|line| !line.trim_start().starts_with("accTitle"));
            let lines = lines.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
            format!("The answer's design (drawn on the chapter's page):\n{lines}")
        }
        Say::Experiment { answer, name } => format!("Run it now:  {}", command(answer, name)),
    }
}

/// Broken into lines. The first begins with the mark, the others are indented as much.
fn wrapped(text: &str, mark: &str) -> String {
    let indent = " ".repeat(mark.chars().count());
    let later = if mark.contains('|') { mark } else { &indent };
    let mut first = mark;
    let mut lines = Vec::new();
    for line in text.lines() {
        let options = textwrap::Options::new(WIDTH).initial_indent(first).subsequent_indent(later);
        lines.push(textwrap::fill(line, options));
        first = later;
    }
    lines.join("\n")
}

/// What the reader is to do.
fn wanted(wants: &Wants) -> String {
    let numbered = |items: &[String]| {
        let items = items.iter().enumerate();
        let items = items.map(|(at, item)| wrapped(item, &format!("  {:>2}  ", at + 1)));
        items.collect::<Vec<_>>().join("\n")
    };
    match wants {
        Wants::Text => {
            "Write; a line with only a dot goes on. Or only speak, and press Enter.".to_owned()
        }
        Wants::Number => "Your number (empty: skip).".to_owned(),
        Wants::Ticks(items) => {
            format!(
                "{}\nType the numbers of the true ones, for example 1 3, or just press Enter.",
                numbered(items)
            )
        }
        Wants::Choice(items) => format!("{}\nType the number of your choice.", numbered(items)),
        Wants::Aloud => "Say it aloud. Then press Enter.".to_owned(),
        Wants::Next => "Enter goes on.".to_owned(),
        Wants::Nothing => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_broken_and_keeps_its_mark() {
        let text = said(&Say::Interviewer("word ".repeat(60)));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(
            text.starts_with("  » word") && text.lines().nth(1).unwrap().starts_with("    word")
        );
        let own = said(&Say::Own(format!("{}\nand", "word ".repeat(30))));
        assert!(own.lines().skip(1).all(|line| line.starts_with("  | ")), "{own}");
    }

    #[test]
    fn items_have_numbers_from_one() {
        let words = wanted(&Wants::Choice(vec!["a".to_owned(), "b".to_owned()]));
        assert!(words.starts_with("   1  a\n   2  b\n"), "{words}");
    }
}
