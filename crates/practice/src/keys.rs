//! How is a key read at once, without Enter? The terminal hands over each letter and does not show it. Ctrl-C stays what
//! it is, and so do the ends of lines: only these two settings change, and they are put back on every way out.

use std::{
    io::{Read, stdin},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// The keys that are pressed, as long as this lives. None come where there is no terminal.
#[derive(Debug)]
pub struct Keys {
    before: Option<Termios>,
    /// Read by one thread at a time: by the one that looks for keys while a check runs, or by the one that waits.
    pressed: Mutex<Receiver<u8>>,
}

impl Keys {
    /// From now on.
    pub fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(stdin()).ok();
        let (press, pressed) = channel();
        if let Some(before) = &before {
            let mut terminal = before.clone();
            terminal.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(stdin(), OptionalActions::Now, &terminal)?;
            // Waits for a key as long as the program lives; nothing else reads the terminal.
            thread::spawn(move || {
                let mut letter = [0];
                while stdin().read_exact(&mut letter).is_ok() && press.send(letter[0]).is_ok() {}
            });
        }
        Ok(Self { before, pressed: Mutex::new(pressed) })
    }

    /// Whether there is a terminal.
    pub fn can_come(&self) -> bool {
        self.before.is_some()
    }

    /// The next key, if one comes within this time.
    pub fn next(&self, within: Duration) -> Option<char> {
        let pressed = self.pressed.lock().unwrap_or_else(PoisonError::into_inner);
        match pressed.recv_timeout(within) {
            Ok(letter) => Some(char::from(letter)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(within);
                None
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // If it fails, the terminal is gone, and needs nothing any more.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
