//! How does a test run `conform`, and how does it know what is left afterwards?

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// macOS has no such command.
pub const HAS_SETSID: bool = cfg!(target_os = "linux");

/// A reader's program: where it is to listen, and its folder, which goes with this.
#[derive(Debug)]
pub struct Reader {
    /// Its port.
    pub port: u16,
    folder: PathBuf,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Reader {
    /// A port on which nobody listens. It is none of those that the system gives to outgoing connections, nor of those
    /// from which the tests of the answers take theirs: what is away must not find its port taken.
    pub fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Each process begins somewhere else.
        let first = u16::try_from(std::process::id() % 187)? * 32;
        let port = loop {
            let port = 4_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 6_000;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break port;
            }
        };
        let folder = std::env::temp_dir().join(format!("conform-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { port, folder })
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The command that runs it, in the foreground.
    pub fn command(&self, options: &str) -> anyhow::Result<String> {
        let this = std::env::current_exe()?;
        Ok(format!("'{}' program {} '{}' {options}", this.display(), self.port, self.file("word")))
    }

    /// `conform` against it, with these words more.
    pub fn conform(&self, words: &[&str]) -> anyhow::Result<Command> {
        conform_at(&format!("http://127.0.0.1:{}", self.port), words)
    }

    /// Whether something listens there.
    pub fn listens(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// Nothing listens there any more.
    pub fn is_gone(&self) -> anyhow::Result<()> {
        eventually("nothing is left", || (!self.listens()).then_some(()))
    }
}

/// `conform` against this target.
pub fn conform_at(target: &str, words: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["conform", "memory", "--target", target]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// What it has said.
pub fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// It ends well, and says this.
pub fn succeeds(command: &mut Command, words: &[&str]) -> anyhow::Result<String> {
    let output = command.output()?;
    let said = said(&output);
    ensure!(output.status.success(), "{}: {said}", output.status);
    says(said, words)
}

/// It fails, and says this.
pub fn fails(command: &mut Command, words: &[&str]) -> anyhow::Result<String> {
    let output = command.output()?;
    let said = said(&output);
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    says(said, words)
}

fn says(said: String, words: &[&str]) -> anyhow::Result<String> {
    for word in words {
        ensure!(said.contains(word), "{word:?} is missing in: {said}");
    }
    Ok(said)
}

/// Polls until there is a value.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if let Some(value) = condition() {
            return Ok(value);
        }
        thread::sleep(Duration::from_millis(10));
    }
    None.with_context(|| format!("waited in vain: {what}"))
}

/// A program that a test has started itself, killed at its end.
#[derive(Debug)]
pub struct Started(pub Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Reader {
    /// Runs the program without `conform`, until it listens.
    pub fn start(&self, options: &str) -> anyhow::Result<Started> {
        let command = format!("exec {}", self.command(options)?);
        let mut started = Started(Command::new("sh").args(["-c", &command]).spawn()?);
        eventually("the program listens", || self.listens().then_some(()))?;
        ensure!(started.0.try_wait()?.is_none(), "another program has its port");
        Ok(started)
    }
}
