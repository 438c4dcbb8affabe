//! How long does it take from the start of a process to its first answer, and who may ask when?

use std::time::{Duration, Instant};

use lab::{Experiment, Lab, Sabotage, Target, load::median};
use tokio::time::sleep;

use super::{
    fixture::{get, ms, until_ready},
    python::Python,
};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Starts of each program
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub starts: u32,
    /// How long our program works before its first request, in milliseconds, in the second part
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=5_000))]
    pub warm_up_ms: u64,
    /// Whether Python's servers are measured too
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub python: bool,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "start",
        "A port that is open says nothing: a program that warms up listens, and answers readiness with 503 until it is done. The \
         time from the start to ready is what a request waits when nothing runs",
        &["--starts", "2", "--warm-up-ms", "300", "--python", "false"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/lifecycle.rs",
        replace: "watch::Sender::new(Phase::Starting)",
        with: "watch::Sender::new(Phase::Ready)",
        check: "the answer to readiness while it warms up",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let warm_up = params.warm_up_ms.to_string();
    let begun = Instant::now();
    let child = lab.serve().args(&["--warm-up-ms", &warm_up]).start().await?;
    let while_it_warms_up = get(child.address(), "/readyz").await?;
    let asked = begun.elapsed();
    until_ready(child.address()).await?;
    let ready = begun.elapsed();
    lab.check_eq("the answer to readiness while it warms up", 503, while_it_warms_up);
    lab.check(
        "it is ready after its warm-up and not before",
        format!("at least {warm_up} ms"),
        format!("{} ms", ready.as_millis()),
        ready >= ms(params.warm_up_ms),
    );
    lab.text(format_args!(
        "It listened after {} ms at most, and was ready after {} ms.",
        asked.as_millis(),
        ready.as_millis()
    ));
    drop(child);

    let mut rows = Vec::new();
    let mut ours = Vec::new();
    for n in 0..params.starts {
        lab.progress(n.into(), params.starts.into(), "our program");
        let begun = Instant::now();
        let child = lab.serve().start().await?;
        until_ready(child.address()).await?;
        ours.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    let ours = median(ours);
    lab.figure_with_target("our program: from start to ready", ours, "ms", Target::AtMost(50.0));
    rows.push(vec!["our program".to_owned(), format!("{ours:.0}")]);
    if params.python {
        match Python::with_packages().await {
            Ok(python) => rows.extend(of_python(&lab, &python, params, ours).await?),
            Err(error) => lab.text(format_args!("Python is not measured: {error:#}")),
        }
    }
    lab.table("From the start of the process to its first answer", &["", "ms"], rows);
    Ok(())
}

/// The same for Python's servers, beside our median.
async fn of_python(
    lab: &Lab,
    python: &Python,
    params: Params,
    ours: f64,
) -> anyhow::Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    let servers: [(&str, &[&str]); 2] =
        [("Flask's own server", &["app.py"]), ("gunicorn", &["-m", "gunicorn", "app:app"])];
    for (name, words) in servers {
        let mut times = Vec::new();
        for n in 0..params.starts {
            lab.progress(n.into(), params.starts.into(), name);
            times.push(start(python, words).await?.as_secs_f64() * 1_000.0);
        }
        let time = median(times);
        lab.figure(format_args!("{name}: from start to ready"), time, "ms");
        lab.figure(format_args!("{name} ÷ our program"), time / ours, "");
        rows.push(vec![name.to_owned(), format!("{time:.0}")]);
    }
    Ok(rows)
}

async fn start(python: &Python, words: &[&str]) -> anyhow::Result<Duration> {
    let port = lab::port::free()?;
    let begun = Instant::now();
    let mut child = python.serve(words, port)?;
    let host = format!("127.0.0.1:{port}");
    while get(&host, "/readyz").await.ok() != Some(200) {
        anyhow::ensure!(begun.elapsed() < ms(20_000), "{words:?} does not become ready");
        sleep(ms(2)).await;
    }
    let took = begun.elapsed();
    // SIGTERM first: gunicorn has a worker, which SIGKILL would leave behind.
    if let Some(pid) = child.id() {
        super::fixture::signal(pid, rustix::process::Signal::TERM)?;
    }
    child.wait().await?;
    Ok(took)
}
