//! Is the Compose stack up, and can we bring it up? `docker-compose.yml` and these constants agree:
//! a test reads the file.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::{net::TcpStream, process::Command, sync::Mutex, time::timeout};

use super::{Service, announce, home, probe};

/// The user of every server in the file.
pub const USER: &str = "answers";
/// The password of every server in the file. It protects nothing: the ports are on loopback.
pub const PASSWORD: &str = "answers";

/// The published port on 127.0.0.1. Not the usual ones, which are often taken.
pub const fn port(kind: Service) -> u16 {
    match kind {
        Service::Postgres => 54320,
        Service::Redis => 63790,
        Service::RabbitMq => 56720,
    }
}

/// The server's address when the stack is up.
pub fn url(kind: Service) -> String {
    let port = port(kind);
    match kind {
        Service::Postgres => format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"),
        Service::Redis => format!("redis://:{PASSWORD}@127.0.0.1:{port}/"),
        Service::RabbitMq => format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/%2f"),
    }
}

/// Whether the published port answers with the file's credentials.
pub(super) async fn is_up(kind: Service) -> bool {
    let connect = TcpStream::connect(("127.0.0.1", port(kind)));
    matches!(timeout(Duration::from_millis(300), connect).await, Ok(Ok(_)))
        && probe::answers(kind, &url(kind)).await.is_ok()
}

/// Whether there is a container engine. The client alone will not do.
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
pub(super) async fn up(kind: Service) -> anyhow::Result<()> {
    // Compose does not like to be run twice at the same time on one project.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    announce(kind, "docker compose up --wait (the first time downloads an image) …");
    let up = Command::new("docker")
        .args(["compose", "up", "--detach", "--wait", kind.word()])
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
    probe::answers(kind, &url(kind)).await.with_context(|| {
        format!("{kind} is healthy in Compose, and yet port {} does not answer", port(kind))
    })
}
