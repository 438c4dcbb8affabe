//! The same mistake in Node and in Python's asyncio: what does one handler that computes do to an event loop?

use std::{fs::read_to_string, process::Stdio, sync::Arc, time::Duration};

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, harness::eventually, stack::workspace};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{
    blocking::{self, rules_for},
    fixture::{Clients, Fixture, Stall, percentile, stall},
};

/// The program, its interpreter, where prices are computed, and whether that stalls everybody. A thread of Python may: the
/// loop has to wait for the GIL after each of its own calls of the system.
const ELSEWHERE: [(&str, &str, &str, Option<bool>); 5] = [
    ("node.mjs", "node", "inline", Some(true)),
    ("node.mjs", "node", "worker", Some(false)),
    ("asyncio_app.py", "python3", "inline", Some(true)),
    ("asyncio_app.py", "python3", "thread", None),
    ("asyncio_app.py", "python3", "process", Some(false)),
];
/// Prices that are asked for at once.
const PRICES: u32 = 2;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Milliseconds of computing for each price
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(50..=10_000))]
    price_ms: u32,
    /// Seconds for which a client asks for the route that does nothing
    #[arg(long, default_value_t = 1.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "event-loop",
        "In Node and in Python's asyncio too, one handler that computes stalls all others. In a worker of Node or a process of \
         Python it does not",
        &["--price-ms", "200", "--seconds", "0.5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/price.rs",
        replace: "spawn_blocking(work).await.map_err(|error| Error::Internal(Arc::new(error)))",
        with: "Ok(work())",
        check: "the shop, pool: median wait of the route that does nothing ÷ time of the first price",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    let (mut rows, mut in_python) = (Vec::new(), Vec::new());
    let rules = rules_for(params.price_ms);
    for (way, stalls) in [("inline", true), ("pool", false)] {
        lab.progress(0, 1, "the shop");
        let (seen, _) = blocking::once(&fixture, way, (PRICES, params.seconds), rules).await?;
        note(&lab, &mut rows, &format!("the shop, {way}"), Some(stalls), &seen);
    }
    for (file, interpreter, way, stalls) in ELSEWHERE {
        lab.progress(0, 1, file);
        let started = started(file, interpreter, way, params.price_ms).await?;
        let Some((process, address)) = started else {
            lab.text(format!("skipped: {file} {way}, since {interpreter} is not installed"));
            continue;
        };
        let clients = Arc::new(Clients::of(&address));
        let prices = vec!["/price".to_owned(); PRICES as usize];
        let seen = stall(&clients, &prices, params.seconds).await?;
        note(&lab, &mut rows, &format!("{interpreter}, {way}"), stalls, &seen);
        if interpreter == "python3" {
            in_python.push(seen.prices);
        }
        let workers = workers_of(&process);
        drop(process);
        // Only Linux tells which they are.
        if !workers.is_empty() {
            let ended = eventually("the workers have ended", async || {
                Ok((!workers.iter().any(|worker| is_running(worker))).then_some(()))
            })
            .await;
            let check = format!("{interpreter}, {way}: its workers end when it is killed");
            lab.check_eq(check, true, ended.is_ok());
        }
    }
    let columns =
        ["program", "p50 (ms)", "p99 (ms)", "longest (ms)", "first price (ms)", "both (ms)"];
    lab.table("A client of /healthz, a hundred times a second, and two prices", &columns, rows);
    if let [_, threads, processes] = in_python[..] {
        // With the GIL, two threads compute in turns.
        let name = "python3: time of two prices at once, in threads ÷ in processes";
        lab.figure(name, threads / processes, "");
    }
    Ok(())
}

fn note(lab: &Lab, rows: &mut Vec<Vec<String>>, name: &str, stalls: Option<bool>, seen: &Stall) {
    let [p50, p99, longest] = [50, 99, 100].map(|it| percentile(&seen.trivial, it));
    let cells = [p50, p99, longest, seen.price, seen.prices].map(|it| format!("{it:.0}"));
    rows.push([vec![name.to_owned()], cells.to_vec()].concat());
    lab.figure(format!("{name}: longest wait of the route that does nothing"), longest, "ms");
    let part = seen.wait / seen.price;
    let check =
        format!("{name}: median wait of the route that does nothing ÷ time of the first price");
    let shown = format!("{part:.2}");
    match stalls {
        Some(true) => lab.check(check, "0.25 or more", shown, part >= 0.25),
        Some(false) => lab.check(check, "0.25 or less", shown, part <= 0.25),
        None => lab.figure(check, part, ""),
    }
}

/// The numbers of the processes that this one has started.
fn workers_of(process: &Child) -> Vec<String> {
    let id = process.id().unwrap_or_default();
    let children = read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

/// A process that has ended, and that nobody has waited for, has no command line any more.
fn is_running(process: &str) -> bool {
    read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// A program from `examples/concurrency/` and its address. Nothing if this machine cannot run it.
async fn started(
    file: &str,
    interpreter: &str,
    way: &str,
    milliseconds: u32,
) -> anyhow::Result<Option<(Child, String)>> {
    let version = Command::new(interpreter).arg("--version").stdin(Stdio::null()).output().await;
    if !version.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let mut process = Command::new(interpreter)
        .arg(workspace().join("examples/concurrency").join(file))
        .args(["0", way, &milliseconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
    let line = timeout(Duration::from_mins(1), lines.next_line()).await;
    let line = line.with_context(|| format!("{file} did not listen within 60 s"))??;
    let address = line.as_deref().and_then(|line| line.strip_prefix("listening on http://"));
    let address = address.with_context(|| format!("{file} ended before it listened"))?;
    Ok(Some((process, address.to_owned())))
}
