//! Does `cargo practice check --watch` work with keys, and leave the terminal as it was? On a terminal of its own.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

mod checkout;

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use checkout::{Checkout, eventually};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

/// A terminal, and the watch in it.
struct Terminal {
    keyboard: File,
    /// The end that programs use. As long as it is open, what it shows can be read.
    screen: File,
    shown: Arc<Mutex<String>>,
    watch: Child,
}

impl Terminal {
    fn start(checkout: &Checkout) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let screen = File::from(open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
        let keyboard = File::from(keyboard);
        let mut watch = checkout.practice(&["check", "--watch"]);
        watch.stdin(screen.try_clone().unwrap()).stdout(screen.try_clone().unwrap());
        let watch = watch.stderr(screen.try_clone().unwrap()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut eyes, seen) = (keyboard.try_clone().unwrap(), Arc::clone(&shown));
        // Ends when the terminal is closed.
        thread::spawn(move || {
            let mut some = [0; 4_096];
            while let Ok(length @ 1..) = eyes.read(&mut some) {
                let text = String::from_utf8_lossy(&some[..length]).into_owned();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { keyboard, screen, shown, watch }
    }

    /// Waits until this is shown, and forgets everything up to it.
    fn shows(&self, words: &str) -> String {
        eventually(words, || {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            let end = shown.find(words)? + words.len();
            Some(shown.drain(..end).collect())
        })
    }

    fn press(&mut self, key: &str) {
        self.keyboard.write_all(key.as_bytes()).unwrap();
    }

    fn ends(&mut self) -> ExitStatus {
        eventually("the watch ends", || self.watch.try_wait().unwrap())
    }

    /// Whether it shows what is typed, and hands over whole lines.
    fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.screen).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

const KEYS: &str = "h hint · s solution · n next · q quit";

#[test]
fn each_save_is_checked_and_a_key_gives_a_hint_the_solution_or_the_next_exercise() {
    let checkout = Checkout::of_git();
    checkout.says(&["start", "sums/add"]);
    let mut terminal = Terminal::start(&checkout);
    // An empty screen, and what is to be done.
    let first = terminal.shows("Add two numbers.");
    assert!(first.contains("\x1b[2J"), "{first:?}");
    terminal.shows("Not yet: That is no sum.");
    terminal.shows(KEYS);
    assert!(!terminal.is_as_before(), "keys need Enter");
    terminal.press("h");
    terminal.shows("Hint 1 of 2: plus");
    terminal.press("s");
    terminal.shows("+    a + b");
    terminal.press("n");
    terminal.shows("you are at sums/add");
    checkout.fill("    a * b");
    terminal.shows("\x1b[2J");
    terminal.shows("right: 5");
    checkout.fill("    b + a");
    terminal.shows("Done: every check of sums/add holds.");
    terminal.shows("The next: cargo practice start sums/double");
    terminal.shows(KEYS);
    terminal.press("n");
    terminal.shows("Double a number.");
    terminal.shows(KEYS);
    terminal.press("q");
    assert!(terminal.ends().success());
    assert!(terminal.is_as_before(), "the terminal is not as it was");
}

#[test]
fn a_key_or_a_save_ends_a_check_that_is_running() {
    let checkout = Checkout::of_git();
    checkout.says(&["start", "sums/add"]);
    checkout.fill("    let _ = (a, b);\n    loop {}");
    let mut terminal = Terminal::start(&checkout);
    terminal.shows("test two_and_two");
    checkout.fill("    let _ = (a, b);\n    loop { std::thread::yield_now() }");
    terminal.shows("Stopped.");
    terminal.shows("test two_and_two");
    terminal.press("q");
    assert!(terminal.ends().success());
    assert!(terminal.is_as_before(), "the terminal is not as it was");
}

#[test]
fn a_signal_ends_the_watch_and_the_terminal_is_as_it_was() {
    let checkout = Checkout::of_git();
    checkout.says(&["start", "sums/add"]);
    for signal in ["-INT", "-TERM"] {
        let mut terminal = Terminal::start(&checkout);
        terminal.shows(KEYS);
        assert!(!terminal.is_as_before());
        let sent = Command::new("kill").args([signal, &terminal.watch.id().to_string()]).status();
        assert!(sent.unwrap().success());
        assert_eq!(terminal.ends().code(), Some(130), "{signal}");
        assert!(terminal.is_as_before(), "{signal}: the terminal is not as it was");
    }
}
