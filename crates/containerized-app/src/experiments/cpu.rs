//! What does half a core mean, and how many threads are right for it?

use anyhow::Context;
use lab::{Experiment, Lab, Need, Sabotage, Service, experiment::seconds, harness::cores, skip};
use serde_json::Value;

use super::containers::Containers;

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// How long each container works, in seconds
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cpu",
        "Half a core is no slower core: the kernel stops all threads for the rest of each 100 ms. Python counts the cores of the \
         host, with the limit as without it; our program counts the limit",
        &["--seconds", "0.6"],
        run,
    )
    .needs(&[Need::Tool(Service::ContainerEngine)])
    .sabotage(Sabotage {
        file: "src/limits.rs",
        replace: "Some(quota / period)",
        with: "Some(period / quota)",
        check: "the limit that our program sees, in cores",
    })
}

/// What one container has done.
struct Done {
    pieces: f64,
    median: f64,
    p99: f64,
    stopped: f64,
    /// The cores that Python counts.
    cores: f64,
    /// The cores that it was given.
    given: f64,
}

const SCRIPT: &str = include_str!("cpu.py");
/// Of one core.
const HALF: &str = "--cpus=0.5";
/// What is tried again if others need the machine meanwhile.
const TRIES: usize = 5;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let containers = Containers::start(&lab).await?;
    lab.progress(0, 5, "making images");
    containers.import_program().await?;
    containers.import_python().await?;
    lab.progress(1, 5, "our program with half a core");
    let child = containers.run(&lab, "ours", &[HALF])?.start().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let who = client.get(format!("{}/who", child.url())).send().await?.text().await?;
    // The naive version does not say.
    let who: Value = serde_json::from_str(&who).unwrap_or_default();
    let seen = who["cpu_limit"].as_f64().unwrap_or_default();
    lab.check_eq("the limit that our program sees, in cores", 0.5, seen);
    lab.check_eq("threads that our program takes", 1, who["workers"].as_u64().unwrap_or_default());
    drop(child);
    let cores = cores().max(2);
    let ways: [(&str, &[&str], usize); 3] = [
        ("no limit, one thread", &[], 1),
        ("half a core, one thread", &[HALF], 1),
        ("half a core, threads by the host", &[HALF], cores),
    ];
    let (mut rows, mut slowest, mut counted) = (Vec::new(), Vec::new(), 0.0);
    for (n, (name, options, threads)) in ways.into_iter().enumerate() {
        lab.progress(n as u64 + 2, 5, name);
        let mut done = work(&containers, options, threads, params).await?;
        // The kernel stops only what has used up its half.
        for _ in 1..TRIES {
            if n == 0 || done.stopped >= 1.0 || done.given > 0.4 {
                break;
            }
            done = work(&containers, options, threads, params).await?;
        }
        if n > 0 && done.stopped < 1.0 && done.given <= 0.4 {
            return Err(skip(format!(
                "other programs need this machine: {:.2} of a core was left for the container",
                done.given
            )));
        }
        if n == 0 {
            lab.check_eq("times that the kernel stopped it without a limit", 0.0, done.stopped);
            counted = done.cores;
        } else if n == 1 {
            lab.check_eq("cores that Python counts with half a core", counted, done.cores);
            lab.check(
                "times that the kernel stopped it with half a core",
                "at least 1",
                done.stopped,
                done.stopped >= 1.0,
            );
        }
        lab.figure(format_args!("{name}: p99"), done.p99, "ms");
        slowest.push(done.p99);
        rows.push(vec![
            name.to_owned(),
            format!("{:.0}", done.pieces / params.seconds),
            format!("{:.1}", done.median),
            format!("{:.1}", done.p99),
            format!("{:.0}", done.stopped),
        ]);
    }
    lab.figure("p99 with threads by the host ÷ by the limit", slowest[2] / slowest[1], "");
    lab.table(
        "Pieces of work in a container",
        &["", "pieces/s", "median (ms)", "p99 (ms)", "times stopped"],
        rows,
    );
    Ok(())
}

async fn work(
    containers: &Containers,
    options: &[&str],
    threads: usize,
    params: Params,
) -> anyhow::Result<Done> {
    let (threads, seconds) = (threads.to_string(), params.seconds.to_string());
    let words = ["run", "--rm", "--network", "none"];
    let program = ["python:3.11", "python", "-c", SCRIPT, &threads, &seconds];
    let said = containers.engine.docker(&[words.as_slice(), options, &program].concat()).await?;
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    let [pieces, median, p99, stopped, cores, given] = numbers[..] else {
        return Err(anyhow::anyhow!("{said}")).context("six numbers");
    };
    Ok(Done { pieces, median, p99, stopped, cores, given })
}
