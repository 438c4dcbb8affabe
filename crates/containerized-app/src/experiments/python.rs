//! Where do Python's packages come from? `pip` downloads them once; they stay below `target`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use super::fixture::FOLDER;

/// The interpreter of this machine, with what the Flask app needs.
#[derive(Debug)]
pub struct Python {
    /// The packages, installed.
    pub packages: PathBuf,
    /// The same as they were downloaded.
    pub wheels: PathBuf,
    /// Where the roots of images with this Python are kept.
    pub base: PathBuf,
}

impl Python {
    /// Downloads and installs, unless it has been done.
    pub async fn with_packages() -> anyhow::Result<Self> {
        let version = say(Command::new("python3").args([
            "-c",
            "import sys; assert sys.version_info >= (3, 10); print('%d.%d' % sys.version_info[:2])",
        ]))
        .await
        .context("it needs python3, 3.10 or later")?;
        let requirements = Path::new(FOLDER).join("app/requirements.txt");
        let folder = lab::stack::workspace().join("target/containerized-app");
        std::fs::create_dir_all(&folder)?;
        let place = |kind: &str| folder.join(format!("{kind}-{}", version.trim()));
        let this =
            Self { packages: place("packages"), wheels: place("wheels"), base: place("base") };
        if !this.wheels.exists() {
            let made = tempfile::tempdir_in(&folder)?;
            let mut pip = pip(&["download", "--quiet", "--dest"]);
            pip.arg(made.path()).arg("--requirement").arg(&requirements);
            say(&mut pip).await.context("pip cannot download Flask")?;
            keep(made, &this.wheels)?;
        }
        if !this.packages.exists() {
            let made = tempfile::tempdir_in(&folder)?;
            let mut pip = pip(&["install", "--quiet", "--no-index", "--find-links"]);
            pip.arg(&this.wheels).arg("--target").arg(made.path());
            say(pip.arg("--requirement").arg(&requirements))
                .await
                .context("pip cannot install Flask")?;
            keep(made, &this.packages)?;
        }
        Ok(this)
    }

    /// Starts the app's server on this port: `app.py`, or gunicorn. It ends when the child is dropped.
    pub fn serve(&self, words: &[&str], port: u16) -> anyhow::Result<Child> {
        let mut command = Command::new("python3");
        command.args(words).current_dir(Path::new(FOLDER).join("app"));
        command.env("PYTHONPATH", &self.packages).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("PORT", port.to_string()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.spawn()?)
    }
}

/// Installs a program by `pip`, unless it has been done. Returns its folder.
pub async fn tool(package: &str) -> anyhow::Result<PathBuf> {
    let folder = lab::stack::workspace().join("target/containerized-app");
    std::fs::create_dir_all(&folder)?;
    let place = folder.join(package);
    if !place.exists() {
        let made = tempfile::tempdir_in(&folder)?;
        let mut pip = pip(&["install", "--quiet", "--target"]);
        let installed = say(pip.arg(made.path()).arg(package)).await;
        installed.with_context(|| format!("pip cannot install {package}"))?;
        keep(made, &place)?;
    }
    Ok(place)
}

fn pip(words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]).args(words).env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    command
}

/// Gives a folder its name when it is complete. If another process was first, its folder stays.
pub fn keep(made: tempfile::TempDir, place: &Path) -> anyhow::Result<()> {
    let made = made.keep();
    if std::fs::rename(&made, place).is_err() {
        std::fs::remove_dir_all(&made)?;
    }
    Ok(())
}

/// Runs it, and returns what it printed.
pub async fn say(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        // Some programs complain on standard output.
        let words =
            [output.stderr, output.stdout].map(|it| String::from_utf8_lossy(&it).into_owned());
        let said = words.iter().find_map(|words| words.trim().lines().last());
        bail!("{}", said.unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
