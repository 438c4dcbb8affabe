//! How does an experiment get a server of its own if only a container engine is installed? The keeper runs
//! `docker run --rm` in place of the server: the Docker client forwards signals, and ends when the container ends.
//!
//! The data is in the server's home and belongs to the same user as the home. So it survives the container, which ends
//! at every kill, and is removed with the home.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use tokio::{process::Command, time::timeout};

use super::{
    announce, compose,
    home::Home,
    programs::on_path,
    service::{Launch, Service, Stop, text},
};

/// The variables with which the Docker client finds its engine.
const CLIENT: [&str; 5] =
    ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"];

/// Whether a server of this service can run in a container. Does not connect to the engine.
pub(super) fn is_possible(service: Service) -> bool {
    service.about().container.is_some() && compose::has_engine()
}

/// Downloads the image, unless the engine has it.
pub(super) async fn pull(service: Service) -> anyhow::Result<()> {
    let image = service.image().context("a service that runs in a container has an image")?;
    let docker = |words: &[&str]| {
        let mut docker = Command::new("docker");
        docker.args(words).stdin(Stdio::null()).kill_on_drop(true);
        docker
    };
    if docker(&["image", "inspect", image]).output().await?.status.success() {
        return Ok(());
    }
    announce(service, format_args!("docker pull {image} …"));
    let pull = timeout(Duration::from_mins(10), docker(&["pull", image]).output());
    let output = pull.await.context("docker pull took more than ten minutes")??;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker pull {image} failed: {}", words.trim());
    Ok(())
}

/// Starts the server of this home in a container, on this port of the loopback interface.
pub(super) fn launch(service: Service, home: &Home, port: u16) -> anyhow::Result<Launch> {
    let about = service.about();
    let image = about.image.context("no image")?;
    let container = about.container.as_ref().context("not in a container")?;
    let folder = home.path.file_name().and_then(|name| name.to_str()).context("no name")?;
    let name = format!("worked-answers-{folder}");
    let password = home.password()?;
    let with_password = |text: &str| text.replace("{password}", &password);

    let data = home.path.join("container");
    fs::create_dir_all(&data)?;
    home.give(&data)?;
    let user = home.account.map_or_else(
        || format!("{}:{}", rustix::process::geteuid(), rustix::process::getegid()),
        |account| format!("{}:{}", account.uid, account.gid),
    );
    let docker = on_path("docker").context("docker is gone")?;
    let mut launch = Launch::new(&docker, &["run", "--rm", "--name", &name, "--user", &user])?;
    let mut add = |words: &[&str]| launch.command.extend(words.iter().map(|&word| word.to_owned()));
    add(&["--publish", &format!("127.0.0.1:{port}:{}", container.port)]);
    add(&["--volume", &format!("{}:{}", text(&data)?, container.data)]);
    if let Some((inside, config)) = container.config {
        let file = home.write("container.conf", &with_password(config))?;
        add(&["--volume", &format!("{}:{inside}:ro", text(&file)?)]);
    }
    for (name, _) in container.environment {
        // The client takes the value from its environment: every user can read a command line.
        add(&["--env", name]);
    }
    add(container.options);
    add(&[image]);
    add(container.arguments);
    let own = container.environment.iter();
    let own = own.map(|(name, value)| ((*name).to_owned(), with_password(value)));
    let client =
        CLIENT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    launch.environment = client.chain(own).collect();
    launch.stop = Stop::Terminate;
    // If the client was killed, the container still runs.
    launch.after = ["docker", "rm", "--force", &name].map(str::to_owned).into();
    launch.container = Some(name);
    Ok(launch)
}
