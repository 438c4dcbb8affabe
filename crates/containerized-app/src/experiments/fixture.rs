//! What do the experiments share? A process that is number one of a namespace of its own, and small requests.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Context;
use lab::{child::Child, load::http::Connection, skip};
use rustix::process::{Pid, Signal, kill_process};

/// The folder of this answer, with its Dockerfiles and manifests.
pub const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// What starts a program as number one, as a container's engine does. It needs no engine: a container is a process in
/// namespaces. An ordinary user may make them on most systems, within a namespace of users.
pub fn as_number_one() -> anyhow::Result<Vec<&'static str>> {
    let mut words = vec!["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !rustix::process::geteuid().is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    let tried = Command::new(words[0]).args(&words[1..]).arg("true").output();
    match tried {
        Ok(output) if output.status.success() => Ok(words),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(skip(format!("this system gives us no namespace of processes: {}", said.trim())))
        }
        Err(_) => Err(skip("it needs `unshare`, of util-linux")),
    }
}

/// The process that is number one below that program, as this system numbers it.
pub fn number_one(child: &Child) -> anyhow::Result<u32> {
    let pid = child.pid().context("it has ended")?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let first = children.split_whitespace().next().context("it has no child")?;
    Ok(first.parse()?)
}

/// Whether there is such a process.
pub fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Sends a signal to a process that we started.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    Ok(kill_process(pid, signal)?)
}

/// The status of a GET over a new connection.
pub async fn get(host: &str, path: &str) -> anyhow::Result<u16> {
    let mut connection = Connection::open(host).await?;
    let request = connection.get(path);
    connection.send(&request).await
}

/// The bytes of a job.
pub fn job(connection: &Connection, milliseconds: u64) -> Vec<u8> {
    connection.post("/jobs", &format!(r#"{{"name":"report","milliseconds":{milliseconds}}}"#))
}

/// Waits until this server says that it is ready.
pub async fn until_ready(host: &str) -> anyhow::Result<()> {
    lab::harness::eventually("it is ready", async || {
        Ok((get(host, "/readyz").await.ok() == Some(200)).then_some(()))
    })
    .await
}

/// For parameters in milliseconds.
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
