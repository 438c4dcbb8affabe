//! How does a reader work without typing commands? Each save is checked, and one key asks for a hint, for the solution
//! or for the next exercise.

use std::{
    fs,
    io::{IsTerminal, stdout},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::anyhow;

use crate::{check::Outcome, desk::Desk, keys::Keys, process::Stop};

/// How often we check whether a file was saved.
const LOOK: Duration = Duration::from_millis(200);

/// What the reader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Saved,
    Hint,
    Solution,
    Next,
    Quit,
}

/// Checks the exercise each time a file is saved, until the reader quits. Without a terminal the reader cannot quit by
/// a key, so it ends when the exercise is done.
pub fn watch(desk: &mut Desk, patience: Duration) -> anyhow::Result<ExitCode> {
    let signals = Stop::on_signals()?;
    let keys = Keys::begin()?;
    loop {
        let exercise = desk.current()?.clone();
        let folder = exercise.folder.join("src");
        let saved = newest(&folder);
        clear();
        desk.show(&exercise);
        println!();
        let looking = Looking { keys: &keys, folder: &folder, signals: &signals };
        let (outcome, during) = checked(desk, patience, &looking, saved);
        let outcome = outcome?;
        if outcome == Outcome::Holds && !keys.can_come() {
            return Ok(ExitCode::SUCCESS);
        }
        if keys.can_come() && outcome != Outcome::Stopped {
            println!("\nh hint · s solution · n next · q quit. A save checks again.");
        }
        let mut event = during;
        loop {
            match event.take().unwrap_or_else(|| looking.wait(saved)) {
                Event::Quit if signals.is_wanted() => return Ok(ExitCode::from(130)),
                Event::Quit => return Ok(ExitCode::SUCCESS),
                Event::Saved => break,
                Event::Hint => told(desk.hint()),
                Event::Solution => told(desk.solution()),
                Event::Next => match next(desk) {
                    Ok(()) => break,
                    Err(error) => told(Err(error)),
                },
            }
        }
    }
}

/// Starts the next exercise.
fn next(desk: &mut Desk) -> anyhow::Result<()> {
    let next = desk.next().ok_or_else(|| anyhow!("every exercise is done"))?.key.to_string();
    desk.start(&next)
}

/// Prints an error and goes on, because the reader can fix it.
fn told(result: anyhow::Result<()>) {
    if let Err(error) = result {
        println!("{error:#}");
    }
}

/// Runs the checks. Any event from the reader meanwhile stops them.
fn checked(
    desk: &mut Desk,
    patience: Duration,
    looking: &Looking<'_>,
    saved: Option<SystemTime>,
) -> (anyhow::Result<Outcome>, Option<Event>) {
    let (run, over) = (Stop::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let look = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if let Some(event) = looking.once(saved) {
                    run.stop();
                    return Some(event);
                }
            }
            None
        });
        let outcome = desk.check(patience, &run);
        over.store(true, Ordering::Relaxed);
        (outcome, look.join().unwrap_or(None))
    })
}

/// The sources of the reader's events.
struct Looking<'a> {
    keys: &'a Keys,
    folder: &'a Path,
    signals: &'a Stop,
}

impl Looking<'_> {
    fn wait(&self, saved: Option<SystemTime>) -> Event {
        loop {
            if let Some(event) = self.once(saved) {
                return event;
            }
        }
    }

    fn once(&self, saved: Option<SystemTime>) -> Option<Event> {
        let key = self.keys.next(LOOK);
        if self.signals.is_wanted() {
            return Some(Event::Quit);
        }
        match key {
            Some('h') => Some(Event::Hint),
            Some('s') => Some(Event::Solution),
            Some('n') => Some(Event::Next),
            Some('q') => Some(Event::Quit),
            _ => (newest(self.folder) != saved).then_some(Event::Saved),
        }
    }
}

/// Clears the screen, if there is one.
fn clear() {
    if stdout().is_terminal() {
        print!("\x1b[2J\x1b[3J\x1b[H");
    }
}

/// When a file below this folder was last saved.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?;
    let times = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        if path.is_dir() { newest(&path) } else { entry.metadata().ok()?.modified().ok() }
    });
    times.max()
}
