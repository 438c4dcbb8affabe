//! Is the Compose stack up, and can we bring it up? `docker-compose.yml` and the services' files agree: a test reads
//! them.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use tokio::{net::TcpStream, process::Command, sync::Mutex, time::timeout};

use super::{announce, home, probe, programs::on_path, service::Service};

/// The server's address when the stack is up, if `docker-compose.yml` has this service.
pub fn url(service: Service) -> Option<&'static str> {
    service.about().compose_url
}

/// Its address, if the published port answers with the file's credentials.
pub(super) async fn found(service: Service) -> Option<&'static str> {
    let url = url(service)?;
    let connect = TcpStream::connect(("127.0.0.1", url::Url::parse(url).ok()?.port()?));
    let listens = matches!(timeout(Duration::from_millis(300), connect).await, Ok(Ok(_)));
    (listens && probe::answers(service, url).await.is_ok()).then_some(url)
}

/// Whether there seems to be a container engine. Looks for its files, and does not connect to it.
pub(super) fn has_engine() -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let sockets = [
        "/var/run/docker.sock".into(),
        home.join(".docker/run/docker.sock"), // Docker Desktop
        home.join(".colima/default/docker.sock"),
    ];
    let socket = std::env::var_os("DOCKER_HOST").is_some() || sockets.iter().any(|it| it.exists());
    socket && on_path("docker").is_some()
}

/// Whether a container engine answers. The client alone is not enough.
pub(super) async fn engine_answers() -> bool {
    let info = Command::new("docker")
        .args(["info", "--format", "{{.ServerVersion}}"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .status();
    matches!(timeout(Duration::from_secs(5), info).await, Ok(Ok(status)) if status.success())
}

/// Brings up one service and waits until it is healthy.
pub(super) async fn up(service: Service, url: &str) -> anyhow::Result<()> {
    // Two runs of Compose at the same time on one project disturb each other.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    announce(service, "docker compose up --wait (the first time downloads an image) …");
    let up = Command::new("docker")
        .args(["compose", "up", "--detach", "--wait", service.about().word])
        .current_dir(home::workspace())
        .stdin(std::process::Stdio::null())
        .output();
    let up = timeout(Duration::from_mins(10), up)
        .await
        .context("docker compose up took more than ten minutes")?
        .context("docker could not be run")?;
    if !up.status.success() {
        bail!("docker compose up failed:\n{}", String::from_utf8_lossy(&up.stderr));
    }
    probe::answers(service, url).await.with_context(|| {
        format!("Compose says that {service} is healthy, but its published port does not answer")
    })
}
