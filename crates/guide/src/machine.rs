//! On which machine was it measured? We record the processor, the memory, the system and the compiler, if we can find
//! out.

use std::{fmt, fs, process::Command};

use serde::{Deserialize, Serialize};

/// The machine and its software.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    system: String,
    rust: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory_gib, system, rust } = self;
        write!(f, "{processor}, {cores} cores, {memory_gib} GiB, {system}, {rust}")
    }
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let Found { processor, memory, system } =
            if cfg!(target_os = "macos") { Found::on_macos() } else { Found::on_linux() };
        let unknown = || "unknown".to_owned();
        Self {
            processor: processor.unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory.unwrap_or_default().div_ceil(1 << 30),
            system: system.unwrap_or_else(|| std::env::consts::OS.to_owned()),
            rust: rust_version().unwrap_or_else(unknown),
        }
    }
}

/// What the system says about the machine. `None` if it does not say.
struct Found {
    processor: Option<String>,
    /// In bytes.
    memory: Option<u64>,
    system: Option<String>,
}

impl Found {
    fn on_linux() -> Self {
        let find = |file: &str, key: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let kib = find("/proc/meminfo", "MemTotal");
        let kib: Option<u64> = kib.and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            processor: find("/proc/cpuinfo", "model name"),
            memory: kib.map(|kib| kib * 1024),
            system: find("/etc/os-release", "PRETTY_NAME"),
        }
    }

    fn on_macos() -> Self {
        let bytes = output("sysctl", &["-n", "hw.memsize"]);
        let version = output("sw_vers", &["-productVersion"]);
        Self {
            processor: output("sysctl", &["-n", "machdep.cpu.brand_string"]),
            memory: bytes.and_then(|bytes| bytes.parse().ok()),
            system: version.map(|version| format!("macOS {version}")),
        }
    }
}

/// `rustc 1.95.0`
fn rust_version() -> Option<String> {
    let words = output("rustc", &["--version"])?;
    Some(words.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// What a program prints, without the end of the line. `None` if it cannot be run, fails or prints nothing.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
