//! How is a key read at once, without Enter? We switch off two settings of the terminal, line buffering and echo.
//! Ctrl-C and line ends work as before. The settings are restored however this ends.

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

/// Receives pressed keys as long as this lives. Without a terminal there are none.
#[derive(Debug)]
pub struct Keys {
    before: Option<Termios>,
    /// One thread reads at a time: the one that looks for keys while a check runs, or the one that waits afterwards.
    pressed: Mutex<Receiver<u8>>,
}

impl Keys {
    /// Begins to receive keys.
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
            // Fails only if the terminal is gone.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
