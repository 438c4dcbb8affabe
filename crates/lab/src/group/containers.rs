//! A container engine of the experiment's own: Docker's daemon, with its own images and containers, on its own socket.
//! It touches neither the reader's Docker nor the machine's network: a container has the machine's network or none.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{process::Command, time::timeout};

use crate::stack::{Service, own::OwnServer, programs::undisturbed};

/// No command of an experiment takes this long.
const PATIENCE: Duration = Duration::from_mins(3);

/// The engine. It ends when this is dropped, and its containers with it.
#[derive(Debug)]
pub struct ContainerEngine {
    server: OwnServer,
}

impl ContainerEngine {
    /// Starts one, without any image.
    pub async fn start() -> anyhow::Result<Self> {
        Ok(Self { server: OwnServer::start(Service::ContainerEngine).await? })
    }

    /// For `DOCKER_HOST`.
    pub fn url(&self) -> anyhow::Result<String> {
        self.server.url()
    }

    /// Its name and version.
    pub async fn version(&self) -> anyhow::Result<String> {
        self.server.version().await
    }

    /// Runs `docker` and returns what it printed: `engine.docker(&["run", "--rm", "--network", "none", "image"])`.
    pub async fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut docker = self.command()?;
        let output = docker.args(arguments).stdin(Stdio::null()).output();
        // An engine may take a command and never answer. Then the client is killed, and the engine goes with this.
        let Ok(output) = timeout(PATIENCE, output).await else {
            bail!("docker {} has not ended within {PATIENCE:?}", arguments.join(" "));
        };
        printed(&output.context("docker cannot be run")?, arguments)
    }

    /// Makes an image from a folder, which becomes the container's root. The engine has no registry to pull from.
    pub async fn import(&self, folder: &Path, image: &str) -> anyhow::Result<()> {
        let mut tar = Command::new("tar")
            .arg("--directory")
            .arg(folder)
            .args(["--create", "--owner=0", "--group=0", "."])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("tar cannot be run")?;
        let packed: Stdio = tar.stdout.take().context("piped")?.try_into()?;
        let arguments = ["import", "-", image];
        let output = self.command()?.args(arguments).stdin(packed).output().await;
        ensure!(tar.wait().await?.success(), "tar could not pack {}", folder.display());
        printed(&output.context("docker cannot be run")?, &arguments).map(drop)
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut docker = Command::new("docker");
        undisturbed(docker.as_std_mut());
        // The classic builder: it needs no plugin.
        docker.args(["--host", &self.url()?]).env("DOCKER_BUILDKIT", "0").kill_on_drop(true);
        Ok(docker)
    }
}

fn printed(output: &Output, arguments: &[&str]) -> anyhow::Result<String> {
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {} failed: {}", arguments.join(" "), words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
