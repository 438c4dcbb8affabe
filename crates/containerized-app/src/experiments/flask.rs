//! What does `docker stop` do to the textbook's image, and to ours?

use std::time::Duration;

use futures_util::future::join_all;
use lab::{
    Experiment, Lab, Need, Sabotage, Service, experiment::seconds, load::http::Connection, port,
};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    containers::{Containers, file},
    fixture::{job, ms, until_ready},
    manifests,
};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Jobs in flight at `docker stop`, and as many shortly before SIGKILL
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub jobs: u64,
    /// How long a job takes, in milliseconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(50..=5_000))]
    pub job_ms: u64,
    /// The grace period, in seconds
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub grace: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "flask",
        "`docker stop` kills the textbook's image after the grace period, with the work that it still takes. Our image, with \
         no rights and a read-only root, answers what is in flight and ends by itself",
        &["--jobs", "5", "--grace", "2.0"],
        run,
    )
    .needs(&[Need::Tool(Service::ContainerEngine)])
    .sabotage(Sabotage {
        file: "Dockerfile",
        replace: r#"CMD ["python", "-m", "gunicorn", "app:app"]"#,
        with: r#"CMD ["python", "app.py"]"#,
        check: "our image: exit code",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let containers = Containers::start(&lab).await?;
    lab.progress(0, 3, "making a local python:3.11");
    containers.import_python().await?;
    let context = containers.app("flask", "")?;
    let rights = manifests::our_rights()?;
    let mut rows = Vec::new();
    for (n, (name, dockerfile)) in
        [("the textbook's image", "Dockerfile.textbook"), ("our image", "Dockerfile")]
            .into_iter()
            .enumerate()
    {
        lab.progress(n as u64 + 1, 3, name);
        let image = format!("flask-{n}");
        containers.build(&file(dockerfile)?, &context, &image, &[]).await?;
        // The textbook says nothing about rights.
        let options = if n == 0 { Vec::new() } else { rights.flags() };
        let Stopped { who, exit, at_once, late } =
            stop(&containers, &image, &options, params).await?;
        rows.push(vec![name.to_owned(), exit.clone(), at_once.to_string(), late.to_string()]);
        if n == 0 {
            let nearly_all = (params.jobs * 9).div_ceil(10);
            lab.check_eq("the textbook's image: exit code", "137", &*exit);
            lab.check(
                "the textbook's image: jobs lost that were taken after SIGTERM",
                format!("at least {nearly_all} of {}", params.jobs),
                late,
                late as u64 >= nearly_all,
            );
        } else {
            let user = rights.user.unwrap_or_default();
            let restricted =
                format!("user {user}, 0 capabilities, read-only: true, may gain: false");
            lab.check_eq("our image, with the rights of our manifest: who it is", restricted, who);
            lab.check_eq("our image: exit code", "0", &*exit);
            lab.check_eq("our image: jobs lost", 0, at_once + late);
        }
    }
    lab.table(
        "docker stop",
        &["", "exit code", "lost of those in flight", "lost of those taken later"],
        rows,
    );
    Ok(())
}

/// A container that was stopped.
struct Stopped {
    /// What it said of itself before.
    who: String,
    exit: String,
    /// Jobs that were in flight and got no answer.
    at_once: usize,
    /// Jobs that were taken later and got no answer.
    late: usize,
}

async fn stop(
    containers: &Containers,
    image: &str,
    options: &[String],
    params: Params,
) -> anyhow::Result<Stopped> {
    // `docker stop` takes whole seconds.
    let (port, grace) = (port::free()?, params.grace.round().max(1.0));
    let variable = format!("PORT={port}");
    let name = format!("{image}-runs");
    let words = ["run", "--detach", "--network", "host", "--env", &variable, "--name", &name];
    // Our manifest mounts a folder there too.
    let mut words = [words.as_slice(), &["--tmpfs", "/tmp"]].concat();
    words.extend(options.iter().map(String::as_str));
    words.push(image);
    containers.engine.docker(&words).await?;
    let host = format!("127.0.0.1:{port}");
    until_ready(&host).await?;
    let who = who(&host).await?;
    let first = tokio::spawn(send(host.clone(), params));
    sleep(ms(params.job_ms / 4)).await;
    let seconds = format!("{grace:.0}");
    let words = ["stop", "--time", &seconds, &name];
    let stopped = containers.engine.docker(&words);
    let late = grace - params.job_ms as f64 / 2_000.0;
    let second = async {
        sleep(Duration::from_secs_f64(late.max(0.0))).await;
        send(host.clone(), params).await
    };
    let (stopped, late) = tokio::join!(stopped, second);
    stopped?;
    let exit = containers.inspect(&name, "{{.State.ExitCode}}").await?;
    Ok(Stopped { who, exit, at_once: first.await?, late })
}

/// As whom it runs, in its own words.
async fn who(host: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let said = client.get(format!("http://{host}/who")).send().await?.text().await?;
    let who: Value = serde_json::from_str(&said)?;
    Ok(format!(
        "user {}, {} capabilities, read-only: {}, may gain: {}",
        who["user"],
        who["capabilities"].as_array().map_or(0, Vec::len),
        who["read_only"],
        who["may_gain_privileges"],
    ))
}

/// Sends jobs at once. Returns how many were taken and not answered.
async fn send(host: String, params: Params) -> usize {
    let one = async || {
        let Ok(mut connection) = Connection::open(&host).await else { return true };
        let request = job(&connection, params.job_ms);
        connection.send(&request).await.is_ok_and(|status| status == 200)
    };
    let answered = join_all((0..params.jobs).map(|_| one())).await;
    answered.into_iter().filter(|answered| !answered).count()
}
