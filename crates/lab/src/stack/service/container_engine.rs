//! The container engine: Docker's daemon and its client.

use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::{About, Launch, Packages, text};
use crate::stack::{
    home::Home,
    programs::{Programs, installed, programs},
};

pub(super) const ABOUT: About = About {
    name: "Docker",
    word: "docker",
    variable: "DOCKER_HOST",
    schemes: &["unix", "tcp", "ssh"],
    packages: Packages { debian: "docker.io", fedora: "moby-engine", brew: "colima docker" },
    image: None,
    container: None,
    compose_url: None,
    refuses_root: false,
    // The daemon runs only as root, and without its client it is of no use.
    find: || {
        installed("docker").next()?;
        let root = rustix::process::geteuid().is_root();
        root.then(|| installed("dockerd").find_map(programs)).flatten()
    },
    launch: |home, programs, _port| Box::pin(async move { launch(home, programs) }),
    url: |home| Ok(format!("unix://{}", socket(home)?)),
    greet: |url| Box::pin(async move { version(url).await.map(drop) }),
    version: |url| Box::pin(version(url)),
};

fn socket(home: &Home) -> anyhow::Result<String> {
    let socket = text(&home.path.join("docker.sock"))?;
    ensure!(socket.len() < 104, "{socket} is too long for the address of a socket");
    Ok(socket)
}

/// The daemon changes neither the network of this machine nor another daemon's data. It has mounts of its own, which go
/// with its last process, however that ends: a mount that stays would keep its folder from being removed.
fn launch(home: &Home, programs: &Programs) -> anyhow::Result<Launch> {
    let folder = text(&home.path)?;
    let unshare = installed("unshare").next().context("it needs `unshare`, of util-linux")?;
    Launch::new(
        &unshare,
        &[
            "--mount",
            "--propagation",
            "private",
            &text(&programs.server)?,
            "--host",
            &format!("unix://{}", socket(home)?),
            "--data-root",
            &format!("{folder}/data"),
            "--exec-root",
            &format!("{folder}/exec"),
            "--pidfile",
            &format!("{folder}/docker.pid"),
            "--iptables=false",
            "--bridge=none",
        ],
    )
}

async fn version(url: &str) -> anyhow::Result<String> {
    let output = Command::new("docker")
        .args(["--host", url, "version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("docker cannot be run")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
