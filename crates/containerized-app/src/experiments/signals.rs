//! What does SIGTERM do to process number one?

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lab::{Experiment, Lab, Need, Sabotage, experiment::seconds, load::http::Connection};
use rustix::process::Signal;
use tokio::time::sleep;

use super::fixture::{as_number_one, is_there, job, ms, number_one, signal, until_ready};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Jobs in flight when SIGTERM comes, and as many shortly before SIGKILL
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=200))]
    pub jobs: u64,
    /// How long a job takes, in milliseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..=5_000))]
    pub job_ms: u64,
    /// The grace period between SIGTERM and SIGKILL, in seconds
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub grace: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "signals",
        "As number one, a program without a handler never gets SIGTERM: it is killed after the grace period, with its work. \
         With a handler it answers what is in flight and ends by itself; an init in front ends it, and loses its work",
        &["--jobs", "5", "--job-ms", "250", "--grace", "1.0"],
        run,
    )
    .needs(&[Need::Linux])
    .sabotage(Sabotage {
        file: "src/lib.rs",
        replace: "service.stop(signal)",
        with: "service.stop(std::future::pending())",
        check: "our program as number one: exit code",
    })
}

/// How a program ends that is still there after the grace period.
const KILLED: &str = "killed";

/// One way to start a program.
struct Way {
    name: &'static str,
    under: Vec<&'static str>,
    whiteboard: bool,
}

/// What was seen.
struct Seen {
    seconds: f64,
    /// Its exit code, if it ended by itself.
    end: String,
    /// Jobs that were in flight at SIGTERM and got no answer.
    lost_at_once: usize,
    /// Jobs that were taken after SIGTERM and got no answer.
    lost_late: usize,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let alone = as_number_one()?;
    let under = |more: &[&'static str]| [alone.as_slice(), more].concat();
    let shell = ["sh", "-c", r#""$0" "$@"; exit $?"#];
    let mut ways = vec![
        Way { name: "our program as number one", under: under(&[]), whiteboard: false },
        Way { name: "without a handler, as number one", under: under(&[]), whiteboard: true },
        Way { name: "our program below a shell", under: under(&shell), whiteboard: false },
    ];
    let init = ["tini", "docker-init"].into_iter().find(|name| is_installed(name));
    match init {
        Some(init) => ways.push(Way {
            name: "without a handler, below an init",
            under: under(&[init, "--"]),
            whiteboard: true,
        }),
        None => lab.text("Neither tini nor docker-init is installed, so no init stands in front."),
    }
    let mut rows = Vec::new();
    for (n, way) in ways.iter().enumerate() {
        lab.progress(n as u64, ways.len() as u64, way.name);
        let seen = try_one(&lab, way, params).await?;
        rows.push(vec![
            way.name.to_owned(),
            format!("{:.2}", seen.seconds),
            seen.end.clone(),
            seen.lost_at_once.to_string(),
            seen.lost_late.to_string(),
        ]);
        let jobs = usize::try_from(params.jobs)?;
        let nearly_all = (jobs * 9).div_ceil(10);
        match n {
            0 => {
                lab.check_eq(format!("{}: exit code", way.name), "0", &*seen.end);
                let lost = seen.lost_at_once + seen.lost_late;
                lab.check_eq(format!("{}: jobs lost", way.name), 0, lost);
                lab.figure("our program ends after SIGTERM in", seen.seconds, "s");
            }
            1 => {
                lab.check_eq(format!("{}: its end", way.name), KILLED, &*seen.end);
                lab.check(
                    format!("{}: jobs lost that were taken after SIGTERM", way.name),
                    format!("at least {nearly_all} of {jobs}"),
                    seen.lost_late,
                    seen.lost_late >= nearly_all,
                );
                lab.figure("without a handler it ends after SIGTERM in", seen.seconds, "s");
            }
            2 => lab.check_eq(
                "our program below a shell, which keeps SIGTERM for itself: its end",
                KILLED,
                &*seen.end,
            ),
            _ => {
                lab.check_eq(format!("{}: exit code", way.name), "143", &*seen.end);
                lab.check(
                    format!("{}: jobs lost that were in flight", way.name),
                    format!("at least {nearly_all} of {jobs}"),
                    seen.lost_at_once,
                    seen.lost_at_once >= nearly_all,
                );
            }
        }
    }
    lab.table(
        "One SIGTERM to number one",
        &[
            "",
            "ended after (s)",
            "exit code",
            "lost of those in flight",
            "lost of those taken later",
        ],
        rows,
    );
    Ok(())
}

fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(name).exists())
}

async fn try_one(lab: &Lab, way: &Way, params: Params) -> anyhow::Result<Seen> {
    let mut builder = lab.serve().under(&way.under);
    if way.whiteboard {
        builder = builder.arg("--whiteboard");
    }
    let mut child = builder.start().await?;
    let (one, host) = (number_one(&child)?, child.address().to_owned());
    until_ready(&host).await?;
    let first = tokio::spawn(send(host.clone(), params));
    // So that all of them have been taken.
    sleep(ms(params.job_ms / 4)).await;
    signal(one, Signal::TERM)?;
    let begun = Instant::now();
    // Half a job before the end of the grace period, more work comes: nobody has told the clients.
    let late = params.grace - params.job_ms as f64 / 2_000.0;
    let second = async {
        sleep(Duration::from_secs_f64(late.max(0.0))).await;
        send(host.clone(), params).await
    };
    let ends = async {
        while is_there(one) && begun.elapsed().as_secs_f64() < params.grace {
            sleep(ms(5)).await;
        }
        let killed = is_there(one);
        let seconds = begun.elapsed().as_secs_f64();
        if killed {
            signal(one, Signal::KILL)?;
        }
        anyhow::Ok((killed, seconds))
    };
    let (lost_late, ended) = tokio::join!(second, ends);
    let (killed, seconds) = ended?;
    // The program that started it ends with it, and says how it ended. Only of SIGKILL `unshare` says nothing.
    let status = child.stop().await?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    let end = if killed { KILLED.to_owned() } else { code.to_string() };
    Ok(Seen { seconds, end, lost_at_once: first.await?, lost_late })
}

/// Sends these jobs at once. Returns how many were taken and not answered. A connection that is refused is not lost: the
/// client knows that nothing was done, and may ask another replica.
async fn send(host: String, params: Params) -> usize {
    let one = async || {
        let Ok(mut connection) = Connection::open(&host).await else { return true };
        let request = job(&connection, params.job_ms);
        connection.send(&request).await.is_ok_and(|status| status == 200)
    };
    join_all((0..params.jobs).map(|_| one())).await.into_iter().filter(|answered| !answered).count()
}
