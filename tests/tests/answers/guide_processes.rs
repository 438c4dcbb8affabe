//! Does everything that an experiment started end with it, however it ends? The tests look at real processes.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::{Stream, StreamExt};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    guide_over_http::Guide,
    support::{Outcome, eventually, tests},
};

tests![
    a_page_that_goes_away_takes_the_experiment_and_its_answer_with_it,
    ctrl_c_of_the_guide_ends_the_experiment_and_its_answer,
    a_guide_that_is_killed_takes_the_experiment_and_its_answer_with_it,
    an_experiment_that_is_killed_says_so,
];

/// The processes of an experiment: the leader of the group, and the answer that it tries.
struct Processes {
    leader: u32,
}

impl Processes {
    /// Waits until this guide's experiment with this many links has started its answer.
    async fn of(guide: Option<u32>, links: u32) -> anyhow::Result<Self> {
        let (guide, links) = (guide.context("it has ended")?, format!(" --links={links} "));
        eventually("the experiment has started its answer", async || {
            let mut all = every_process()?.into_iter();
            let leader = all.find(|it| it.parent == guide && it.words.contains(&links));
            let Some(Process { pid: leader, .. }) = leader else { return Ok(None) };
            let processes = Self { leader };
            Ok((processes.alive()?.len() > 1).then_some(processes))
        })
        .await
    }

    fn alive(&self) -> anyhow::Result<Vec<String>> {
        let mine = every_process()?.into_iter().filter(|process| process.group == self.leader);
        Ok(mine.map(|process| process.words).collect())
    }

    async fn have_ended(&self) -> Outcome {
        eventually("all of them have ended", async || Ok(self.alive()?.is_empty().then_some(())))
            .await
            .with_context(|| format!("alive: {:?}", self.alive()))
    }
}

struct Process {
    pid: u32,
    parent: u32,
    group: u32,
    words: String,
}

/// All running processes.
fn every_process() -> anyhow::Result<Vec<Process>> {
    if !cfg!(target_os = "linux") {
        return Err(lab::skip("it looks into /proc"));
    }
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse() else { continue };
        // The process may end meanwhile.
        let (Ok(stat), Ok(words)) = (
            fs::read_to_string(process.path().join("stat")),
            fs::read(process.path().join("cmdline")),
        ) else {
            continue;
        };
        // `pid (name) state ppid pgrp …`
        let fields = stat.rsplit_once(')').context("no name")?.1;
        let fields: Vec<_> = fields.split_whitespace().collect();
        // A zombie has ended, but nobody has collected its exit status.
        if fields[0] != "Z" {
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            let (parent, group) = (fields[1].parse()?, fields[2].parse()?);
            found.push(Process { pid, parent, group, words });
        }
    }
    Ok(found)
}

/// Runs for half a minute. The number of links distinguishes the tests of this file.
fn long(links: u32) -> Value {
    json!({ "links": links, "seconds": 30 })
}

async fn a_page_that_goes_away_takes_the_experiment_and_its_answer_with_it() -> Outcome {
    let guide = Guide::start().await?;
    let page = guide.run("expiry", &long(11)).send().await?.bytes_stream();
    let (page, processes) = read_until(page, Processes::of(Some(std::process::id()), 11)).await?;
    drop(page);
    processes.have_ended().await
}

/// Reads the stream as a page does, until a condition holds.
async fn read_until<S: Stream + Unpin, T>(
    mut page: S,
    until: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(S, T)> {
    let mut until = std::pin::pin!(until);
    loop {
        tokio::select! {
            found = &mut until => return Ok((page, found?)),
            told = page.next() => { told.context("the run ended")?; }
        }
    }
}

/// This executable as `cargo run`.
async fn guide_process() -> anyhow::Result<(Child, String)> {
    let mut guide = Command::new(std::env::current_exe()?)
        .env(crate::AS_GUIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(guide.stdout.take().context("piped")?).lines();
    let line = lines.next_line().await?.context("it ended before it listened")?;
    let url = line.strip_prefix("listening on ").context("not that line")?;
    Ok((guide, url.trim_end_matches('/').to_owned()))
}

async fn run(url: &str, params: &Value) -> anyhow::Result<reqwest::Response> {
    let experiment = format!("{url}/api/experiments/url-shortener/expiry");
    let run = Client::new().post(experiment).header("origin", url).json(params).send().await?;
    ensure!(run.status() == 200, "{}", run.status());
    Ok(run)
}

/// The signal that a terminal sends to all processes of its group when somebody presses Ctrl-C.
async fn ctrl_c(guide: &Child) -> Outcome {
    let group = format!("-{}", guide.id().context("it has ended")?);
    let sent = Command::new("kill").args(["-INT", "--", &group]).status().await?;
    ensure!(sent.success());
    Ok(())
}

async fn ctrl_c_of_the_guide_ends_the_experiment_and_its_answer() -> Outcome {
    let (mut guide, url) = guide_process().await?;
    let page = run(&url, &long(12)).await?.bytes_stream();
    let (page, processes) = read_until(page, Processes::of(guide.id(), 12)).await?;
    let asked = Instant::now();
    ctrl_c(&guide).await?;
    let status = guide.wait().await?;
    ensure!(status.success(), "{status}");
    ensure!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(page);
    processes.have_ended().await
}

async fn a_guide_that_is_killed_takes_the_experiment_and_its_answer_with_it() -> Outcome {
    let (mut guide, url) = guide_process().await?;
    let page = run(&url, &long(13)).await?.bytes_stream();
    let (_page, processes) = read_until(page, Processes::of(guide.id(), 13)).await?;
    guide.kill().await?;
    processes.have_ended().await
}

async fn an_experiment_that_is_killed_says_so() -> Outcome {
    let guide = Guide::start().await?;
    let page = guide.run("expiry", &long(14)).send().await?.bytes_stream();
    let (mut page, processes) =
        read_until(page, Processes::of(Some(std::process::id()), 14)).await?;
    Command::new("kill").args(["-KILL", &processes.leader.to_string()]).status().await?;
    let mut told = String::new();
    while let Some(bytes) = page.next().await {
        told.push_str(&String::from_utf8_lossy(&bytes?));
    }
    ensure!(told.contains("\"held\":false") && told.contains("signal: 9"), "{told}");
    // The guide was killed, so it could not end the processes itself.
    processes.have_ended().await
}
