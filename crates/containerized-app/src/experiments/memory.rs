//! What happens above the limit of memory, and who knows of the limit?

use futures_util::future::join_all;
use lab::{Experiment, Lab, Need, Sabotage, Service, load::http::Connection};

use super::{containers::Containers, fixture::get};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// The limit of the container, in MiB
    #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u64).range(128..=2_048))]
    pub limit: u64,
    /// Requests at once
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=200))]
    pub requests: u64,
    /// How much each takes, in MiB
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub each: u64,
    /// For how long, in milliseconds
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub milliseconds: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "memory",
        "Above its limit of memory a container is killed (137, OOMKilled), with everything that it was doing. A program that \
         knows the limit refuses what does not fit, and answers all the rest",
        &["--milliseconds", "300"],
        run,
    )
    .needs(&[Need::Tool(Service::ContainerEngine)])
    .sabotage(Sabotage {
        file: "src/memory.rs",
        replace: "const SHARE: f64 = 0.8;",
        with: "const SHARE: f64 = 8.0;",
        check: "our program was killed for its memory",
    })
}

/// What was seen.
struct Seen {
    served: usize,
    refused: usize,
    lost: usize,
    killed: bool,
    exit: String,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let containers = Containers::start(&lab).await?;
    containers.import_program().await?;
    let mut rows = Vec::new();
    for (n, name) in ["ours", "naive"].into_iter().enumerate() {
        lab.progress(n as u64, 2, name);
        let seen = try_one(&lab, &containers, name, params).await?;
        rows.push(vec![
            name.to_owned(),
            seen.served.to_string(),
            seen.refused.to_string(),
            seen.lost.to_string(),
            seen.exit.clone(),
            seen.killed.to_string(),
        ]);
        if n == 0 {
            lab.check_eq("our program was killed for its memory", false, seen.killed);
            lab.check_eq("requests to our program without an answer", 0, seen.lost);
            lab.check(
                "requests that our program served",
                "at least 1",
                seen.served,
                seen.served >= 1,
            );
            lab.figure("requests that our program served", seen.served as f64, "");
            lab.figure("requests that our program refused", seen.refused as f64, "");
        } else {
            lab.check_eq("a program that takes what it is asked for was killed", true, seen.killed);
            lab.check_eq("its exit code", "137", &*seen.exit);
            lab.check(
                "requests without an answer from it",
                "at least 1",
                seen.lost,
                seen.lost >= 1,
            );
            lab.figure("requests that were lost with the naive program", seen.lost as f64, "");
        }
    }
    lab.table(
        format!(
            "{} requests for {} MiB each, below {} MiB",
            params.requests, params.each, params.limit
        ),
        &["program", "served", "refused (503)", "no answer", "exit code", "OOMKilled"],
        rows,
    );
    Ok(())
}

async fn try_one(
    lab: &Lab,
    containers: &Containers,
    name: &str,
    params: Params,
) -> anyhow::Result<Seen> {
    let limit = format!("{}m", params.limit);
    // Without swap: it would only make the end slower.
    let options = ["--memory", &limit, "--memory-swap", &limit];
    let mut builder = containers.run(lab, name, &options)?;
    if name == "naive" {
        builder = builder.arg("--whiteboard");
    }
    let mut child = builder.start().await?;
    if name == "ours" {
        sees_the_limit(lab, child.url(), params).await?;
    }
    let host = child.address().to_owned();
    let ask = async || {
        let path = format!("/eat?mib={}&milliseconds={}", params.each, params.milliseconds);
        let mut connection = Connection::open(&host).await?;
        let request = connection.post(&path, "");
        connection.send(&request).await
    };
    let answers: Vec<_> = join_all((0..params.requests).map(|_| ask())).await;
    let count = |status| answers.iter().filter(|it| it.as_ref().ok() == Some(&status)).count();
    let (served, refused) = (count(200), count(503));
    // If it lives, it answers. `docker stop` is SIGTERM, and the client passes it on.
    if get(&host, "/").await.is_ok() {
        child.stop().await?;
    }
    let state = containers.inspect(name, "{{.State.OOMKilled}} {{.State.ExitCode}}").await?;
    let (killed, exit) = state.split_once(' ').unwrap_or_default();
    let lost = answers.len() - served - refused;
    Ok(Seen { served, refused, lost, killed: killed == "true", exit: exit.to_owned() })
}

/// The machine's memory and cores can be seen in every container; the limit has to be looked for.
async fn sees_the_limit(lab: &Lab, url: &str, params: Params) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let who = client.get(format!("{url}/who")).send().await?;
    // The naive version does not say.
    let who: serde_json::Value = serde_json::from_str(&who.text().await?).unwrap_or_default();
    let seen = who["memory_limit"].as_u64().unwrap_or_default() >> 20;
    lab.check_eq("the limit that our program sees, in MiB", params.limit, seen);
    Ok(())
}
