//! How does a secret get in, and never out again? From a file or from the environment, into a type that shows nothing.
//!
//! Never from an argument: `/proc/…/cmdline` shows the arguments of a process to every user of the machine.

use std::{fmt, io, path::Path};

/// A password, or a key. It is neither displayed nor serialised, and its `Debug` says only that it is there.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// From this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    // ANCHOR: secret
    /// From this file, or else from this variable; nothing if there is neither.
    pub fn load(file: Option<&Path>, variable: &str) -> io::Result<Option<Self>> {
        let text = match file {
            Some(file) => Some(std::fs::read_to_string(file)?),
            None => std::env::var(variable).ok(),
        };
        Ok(text.map(|text| Self(text.trim_end_matches(['\r', '\n']).to_owned())))
    }

    /// The text. Each call of this is a place where it may leak: search for them.
    pub fn expose(&self) -> &str {
        &self.0
    }
    // ANCHOR_END: secret
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
    fn the_end_of_a_line_in_a_file_is_no_part_of_it() {
        let file = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, "two words\r\n").unwrap();
        let secret = Secret::load(Some(&file), "NO_SUCH_VARIABLE").unwrap().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(secret.expose(), "two words");
        assert!(Secret::load(Some(&file), "NO_SUCH_VARIABLE").is_err(), "a file that is not there");
        assert!(Secret::load(None, "NO_SUCH_VARIABLE").unwrap().is_none());
    }
}
