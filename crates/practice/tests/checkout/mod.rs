//! A reader's checkout with one small answer, and `cargo practice` in it: the real program.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub const CODE: &str = "// ANCHOR: sum\n/// The sum.\npub fn sum(a: u8, b: u8) -> u8 {\n    a + b\n}\n\
                        // ANCHOR_END: sum\n\n#[test]\nfn two_and_two() {\n    assert_eq!(sum(2, 2), 4);\n    \
                        assert_eq!(sum(2, 3), 5);\n}\n";
/// What every answer's program does, as far as `practice` uses it.
const MAIN: &str = r##"fn main() {
    // The first run waits for the servers.
    if std::path::Path::new("slow-servers").exists() {
        std::thread::sleep(std::time::Duration::from_secs(2));
        std::fs::remove_file("slow-servers").unwrap();
    }
    let holds = sums::sum(20, 3) == 23;
    if std::env::args().nth(1).as_deref() == Some("experiment") {
        println!(r#"{{"checks":[{{"check":"23","expected":"23","seen":"?","held":{holds}}}]}}"#);
    }
}
"##;
const ADD: &str = "---\ntitle: Add\nlevel: a minute\nfile: src/lib.rs\ngap: sum\ntodo: add\nchecks:\n  - unit: \
                   two_and_two\n    otherwise: That is no sum.\n  - experiment: large\n    otherwise: Not for large \
                   ones.\nhints: [plus, a + b]\n---\n\nAdd two numbers.\n";
const DOUBLE: &str = "---\ntitle: Double\nlevel: a minute\nfile: src/double.rs\ngap: double\ntodo: double\nchecks:\n  - \
                      unit: twice\n    otherwise: That is not twice as much.\nhints: [times, a * 2]\n---\n\nDouble a \
                      number.\n";
const DOUBLE_CODE: &str = "// ANCHOR: double\n/// Twice as much.\npub fn double(a: u8) -> u8 {\n    a * 2\n}\n\
                           // ANCHOR_END: double\n\n#[test]\nfn twice() {\n    assert_eq!(double(3), 6);\n}\n";

pub struct Checkout(pub TempDir);

impl Checkout {
    /// As it is downloaded, without git.
    pub fn unpacked() -> Self {
        let checkout = Self(tempfile::tempdir().unwrap());
        let code = format!("pub mod double;\n{CODE}");
        for (path, text) in [
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\nresolver = \"3\"\n"),
            (".gitignore", "target\n.practice\nCargo.lock\n"),
            (".gitattributes", include_str!("../../../../.gitattributes")),
            ("crates/guide/Cargo.toml", "[package]\nname = \"guide\"\nedition = \"2024\"\n"),
            ("crates/guide/src/main.rs", "fn main() {}"),
            ("crates/sums/Cargo.toml", "[package]\nname = \"sums\"\nedition = \"2024\"\n"),
            ("crates/sums/src/lib.rs", &code),
            ("crates/sums/src/double.rs", DOUBLE_CODE),
            ("crates/sums/src/main.rs", MAIN),
            ("crates/sums/exercises/add.md", ADD),
            ("crates/sums/exercises/double.md", DOUBLE),
        ] {
            let path = checkout.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        checkout
    }

    pub fn of_git() -> Self {
        let checkout = Self::unpacked();
        checkout.git(&["init", "--quiet"]);
        checkout.commit();
        checkout
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn git(&self, words: &[&str]) {
        let name = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"];
        let status = Command::new("git").args(name).args(words).current_dir(&self.0).status();
        assert!(status.unwrap().success(), "git {words:?}");
    }

    pub fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "mine"]);
    }

    pub fn code(&self) -> String {
        fs::read_to_string(self.path("crates/sums/src/lib.rs")).unwrap()
    }

    /// Writes this as the body of `sum`.
    pub fn fill(&self, body: &str) {
        let code = self.code().replace("\r\n", "\n");
        let from = code.find("-> u8 {\n").unwrap() + "-> u8 {\n".len();
        let end = from + code[from..].find("\n}").unwrap();
        let code = format!("{}{body}{}", &code[..from], &code[end..]);
        fs::write(self.path("crates/sums/src/lib.rs"), code).unwrap();
    }

    /// `cargo practice` with these words.
    pub fn practice(&self, words: &[&str]) -> Command {
        let mut practice = Command::new(env!("CARGO_BIN_EXE_practice"));
        practice
            .args(words)
            .current_dir(&self.0)
            .env("CARGO_MANIFEST_DIR", self.path("crates/practice"))
            .env("CARGO_TARGET_DIR", self.path("target"))
            .stdin(Stdio::null());
        practice
    }

    /// What it said, which succeeded.
    pub fn says(&self, words: &[&str]) -> String {
        let output = self.practice(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        said(&output)
    }

    /// What it said, which failed.
    pub fn refuses(&self, words: &[&str]) -> String {
        let output = self.practice(words).output().unwrap();
        assert!(!output.status.success(), "{words:?}: {}", said(&output));
        said(&output)
    }
}

pub fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// What comes of `look`, as soon as anything does.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "not within two minutes: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
