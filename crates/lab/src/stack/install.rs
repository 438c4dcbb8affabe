//! What if a server is not installed? As root on Debian and its relatives, `apt-get` installs it. Elsewhere the error
//! lists the commands to type.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::{
    announce, compose, home,
    programs::on_path,
    service::{Packages, Service},
};

/// Whether we can install packages on this system.
fn is_possible() -> bool {
    on_path("apt-get").is_some() && rustix::process::geteuid().is_root()
}

fn is_forbidden() -> bool {
    std::env::var("STACK_INSTALL").is_ok_and(|word| word == "never")
}

/// Whether a missing server is installed when it is needed.
pub fn is_allowed() -> bool {
    is_possible() && !is_forbidden()
}

/// Installs the programs of this service. If that is not possible, the error says how to install them.
pub async fn install(service: Service) -> anyhow::Result<()> {
    if !is_allowed() {
        bail!("{}", how_to(service, is_possible()));
    }
    let parent = home::parent()?;
    // One `apt-get` at a time, among all processes and for all servers.
    let path = parent.join("install.lock");
    let lock = fs::File::create(&path).with_context(|| path.display().to_string())?;
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if service.programs().is_some() {
        return Ok(());
    }
    let package = service.about().packages.debian;
    announce(service, format_args!("not found; apt-get install {package} …"));
    let log = parent.join("apt.log");
    // A fresh system image has no package lists, and an old one has outdated ones.
    apt_get(&["update", "-q"], &log).await?;
    apt_get(&["install", "-q", "-y", "--no-install-recommends", package], &log).await?;
    announce(service, "installed");
    Ok(())
}

async fn apt_get(arguments: &[&str], log: &Path) -> anyhow::Result<()> {
    let output = fs::File::options().create(true).append(true).open(log)?;
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .await?;
    if !status.success() {
        bail!("apt-get {} failed:\n{}", arguments.join(" "), home::tail(log));
    }
    Ok(())
}

/// The commands that install it on this system.
fn commands(service: Service) -> Vec<String> {
    let Packages { debian, fedora, brew } = service.about().packages;
    let mut commands = Vec::new();
    if on_path("apt-get").is_some() {
        commands.push(format!("sudo apt-get install -y {debian}"));
    }
    if on_path("dnf").is_some() {
        commands.push(format!("sudo dnf install -y {fedora}"));
    }
    if cfg!(target_os = "macos") || on_path("brew").is_some() {
        commands.push(format!("brew install {brew}"));
    }
    commands
}

/// The first of these commands, or a note that there is none.
pub fn command(service: Service) -> String {
    commands(service).into_iter().next().unwrap_or_else(|| "no package manager is known".to_owned())
}

/// What to type on this system.
fn how_to(service: Service, forbidden: bool) -> String {
    let mut lines = vec![format!("{service} is missing. Do any one of these:")];
    if forbidden {
        lines[0] = format!("{service} is missing, and STACK_INSTALL=never forbids installing it.");
    }
    lines.extend(commands(service).into_iter().map(|command| format!("  {command}")));
    if compose::url(service).is_some() {
        lines.push("  docker compose up --wait     (with a container engine)".to_owned());
    }
    lines.push(format!("  export {}=…          (a server that you have)", service.variable()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_is_an_error_that_can_be_acted_on() {
        for service in Service::EVERY {
            let text = how_to(service, false);
            assert!(
                text.contains(&service.to_string()) && text.contains(service.variable()),
                "{text}"
            );
            let compose = text.contains("docker compose up --wait");
            assert_eq!(compose, Service::STACK.contains(&service), "{text}");
        }
    }
}
