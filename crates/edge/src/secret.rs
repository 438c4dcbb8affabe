//! How does a secret get into a program, and never out again? From a file or from the environment, into a type that shows
//! nothing.
//!
//! Never from an argument: `/proc/…/cmdline` shows the arguments of a process to every user of the machine.

use std::{env, ffi::OsString, fmt, fs, io};

/// A password, or a key. It is neither displayed nor serialised, and its `Debug` says only that it is there.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// From this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// From the file that the variable `NAME_FILE` names, or else from the variable `NAME`; nothing if there is neither.
    /// An empty one is an error: somebody believes that there is a secret.
    pub fn load(name: &str) -> io::Result<Option<Self>> {
        Self::of(name, env::var_os(format!("{name}_FILE")), env::var_os(name))
    }

    fn of(name: &str, file: Option<OsString>, text: Option<OsString>) -> io::Result<Option<Self>> {
        let invalid = |what: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the secret {name} {what}"))
        };
        let text = match (file, text) {
            (Some(file), _) => fs::read_to_string(file)?,
            (None, Some(text)) => text.into_string().map_err(|_| invalid("is no text"))?,
            (None, None) => return Ok(None),
        };
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(invalid("is empty")),
            text => Ok(Some(Self(text.to_owned()))),
        }
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
    use std::os::unix::ffi::OsStringExt;

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

    #[test]
    fn what_is_empty_or_no_text_is_an_error_and_not_no_secret() {
        let of = |text: &[u8]| Secret::of("KEY", None, Some(OsString::from_vec(text.to_vec())));
        assert_eq!(of(b"hunter2\r\n").unwrap().unwrap().expose(), "hunter2");
        for text in [&b""[..], b"\n", b"\xff\xfe"] {
            let error = of(text).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        let file = Some(OsString::from("/dev/null"));
        let error = Secret::of("KEY", file, Some(OsString::from("hunter2"))).unwrap_err();
        assert_eq!(error.to_string(), "the secret KEY is empty");
    }
}
