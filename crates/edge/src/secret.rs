//! How does a secret get into a program, and never out again? From a file or from the environment, into a type that shows
//! nothing.
//!
//! Never from an argument: `/proc/…/cmdline` shows the arguments of a process to every user of the machine.

use std::{env, fmt, fs, io};

/// A password, or a key. It is neither displayed nor serialised, and its `Debug` says only that it is there.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// From this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// From the file that the variable `NAME_FILE` names, or else from the variable `NAME`; nothing if there is neither.
    pub fn load(name: &str) -> io::Result<Option<Self>> {
        let text = match env::var_os(format!("{name}_FILE")) {
            Some(file) => Some(fs::read_to_string(file)?),
            None => env::var(name).ok(),
        };
        Ok(text.map(|text| Self(text.trim_end_matches(['\r', '\n']).to_owned())))
    }

    /// The text. Each call of this is a place where it may leak: search for them.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn it_comes_from_the_environment() {
        // Cargo sets it for every test.
        let secret = Secret::load("CARGO_PKG_NAME").unwrap();
        assert_eq!(secret.unwrap().expose(), "edge");
        assert!(Secret::load("NO_SUCH_VARIABLE").unwrap().is_none());
    }
}
