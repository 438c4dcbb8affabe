//! Who starts a private server, who shares it, who stops it? Whoever comes first starts it, everybody
//! shares it, and its keeper (`keeper.sh`) stops it when the last user has been gone for ten minutes.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::{
    Service, announce,
    home::Home,
    launch::{self, Launch},
    probe,
    programs::Programs,
};

/// How long a server may take to start. RabbitMQ takes four seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

/// Starts the shared server, or finds it running; returns its address and our place among its users.
pub async fn join(kind: Service, programs: &Programs) -> anyhow::Result<(String, File)> {
    let home = Home::shared(kind)?;
    home.create()?;
    let _turn = turn(&home).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if home.claim()?.is_some() {
            // Free, and we hold the turn: nobody else starts it now.
            let begun = Instant::now();
            announce(kind, "starting a private server …");
            let user = start(&home, programs, idle_seconds(), "").await?;
            let took = begun.elapsed().as_secs_f64();
            announce(
                kind,
                format_args!("ready after {took:.1} s (private, {})", home.path.display()),
            );
            return Ok((home.url()?, user));
        }
        if let Some(user) = home.enter()? {
            let url = home.url()?;
            probe::answers(kind, &url).await.with_context(|| does_not_answer(&home))?;
            announce(kind, "using the private server that runs already");
            return Ok((url, user));
        }
        // It is just now being stopped by its keeper.
        if Instant::now() > deadline {
            bail!("{}", lost_its_keeper(&home));
        }
        sleep(POLL).await;
    }
}

/// Starts the server of this home, whose lock nobody may hold, and waits until it answers. Its keeper
/// ends it when it has had no user for `idle` seconds.
pub async fn start(
    home: &Home,
    programs: &Programs,
    idle: u64,
    at_the_end: &str,
) -> anyhow::Result<File> {
    let mut port = home.free_port()?;
    for attempt in 1.. {
        let running = home.claim()?.context("somebody else has just started it")?;
        let mut launch = launch::prepare(home, programs, port).await?;
        launch.after = format!("{}\n{at_the_end}", launch.after);
        let mut keeper = spawn_keeper(home, &launch, running, idle)?;
        match ready(home, &mut keeper).await {
            Ok(user) => {
                // The keeper outlives us; when it ends, somebody has to take its exit status.
                std::thread::spawn(move || keeper.wait());
                return Ok(user);
            }
            // Between our look and its start, somebody else took the port.
            Err(_) if attempt < 3 && std::net::TcpListener::bind(("127.0.0.1", port)).is_err() => {
                fs::remove_file(home.path.join("port"))?;
                port = home.free_port()?;
            }
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop ends by returning")
}

/// Only one process at a time starts or stops a server.
async fn turn(home: &Home) -> anyhow::Result<File> {
    let lock = home.lock_file("start.lock")?;
    if lock.try_lock().is_err() {
        announce(home.kind, "waiting for another process that starts or stops it …");
        return Ok(tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??);
    }
    Ok(lock)
}

fn spawn_keeper(home: &Home, launch: &Launch, running: File, idle: u64) -> anyhow::Result<Child> {
    let log = home.path.join("log");
    let _ = fs::rename(&log, home.path.join("log.old"));
    home.write("log", "")?;
    let log = File::options().append(true).open(log)?;
    let mut keeper = Command::new("/bin/sh");
    keeper
        // The text is passed, not the file: a shell reads its script as it goes.
        .args(["-c", include_str!("keeper.sh"), "keeper", &idle.to_string()])
        .args([launch.stop, &launch.after])
        .args(&launch.command)
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&home.path)
        // Ctrl-C in the reader's terminal is for us, not for the servers.
        .process_group(0)
        .stdin(Stdio::from(running))
        .stdout(log.try_clone()?)
        .stderr(log);
    if let Some(account) = home.account {
        keeper.uid(account.uid).gid(account.gid);
    }
    keeper.spawn().context("cannot run /bin/sh")
}

/// Waits until the server answers. We become its user first, so that it ends if we do.
async fn ready(home: &Home, keeper: &mut Child) -> anyhow::Result<File> {
    let deadline = Instant::now() + PATIENCE;
    let mut user = None;
    loop {
        if let Some(status) = keeper.try_wait()? {
            bail!("{} did not start ({status}). {}", home.kind, last_words(home));
        }
        if Instant::now() > deadline {
            bail!("{} took more than a minute to start. {}", home.kind, last_words(home));
        }
        if user.is_none() {
            user = home.enter()?;
        }
        let port: u16 = home.read("port")?.parse()?;
        let listens = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        if listens && user.is_some() && probe::answers(home.kind, &home.url()?).await.is_ok() {
            return user.context("just seen");
        }
        sleep(POLL).await;
    }
}

/// Stops the shared server, whoever uses it. Says whether it ran.
pub async fn stop(kind: Service) -> anyhow::Result<bool> {
    let home = Home::shared(kind)?;
    if !home.is_running()? {
        return Ok(false);
    }
    let _turn = turn(&home).await?;
    let deadline = Instant::now() + PATIENCE;
    let mut told = None;
    while home.is_running()? {
        if told.is_none()
            && let Some(mut user) = home.enter()?
        {
            // It stays open: what is written while the keeper is between two readings goes with its
            // writer. A failure means that the keeper has gone in this moment.
            told = user.write_all(b"down\n").is_ok().then_some(user);
        }
        if Instant::now() > deadline {
            bail!("{}", lost_its_keeper(&home));
        }
        sleep(POLL).await;
    }
    Ok(true)
}

/// Ten minutes, unless `STACK_IDLE_SECONDS` says otherwise.
fn idle_seconds() -> u64 {
    let given = std::env::var("STACK_IDLE_SECONDS").ok();
    given.and_then(|seconds| seconds.parse().ok()).unwrap_or(600)
}

fn last_words(home: &Home) -> String {
    format!(
        "The end of its log ({}):\n\n{}\n\nIf its data is damaged, `rm -rf {}` makes a fresh one; \
         {}=… uses another server.",
        home.path.join("log").display(),
        home.log_tail(),
        home.path.display(),
        home.kind.variable(),
    )
}

fn does_not_answer(home: &Home) -> String {
    format!("{} runs and does not answer. {}", home.kind, last_words(home))
}

fn lost_its_keeper(home: &Home) -> String {
    format!(
        "{} still runs, but what looked after it was killed. End it with\n\n    kill $(lsof -t {})\n\n\
         and try again.",
        home.kind,
        home.path.join("running.lock").display(),
    )
}
