//! What looks after a private server? Its keeper: this same executable, started again as the parent process of the
//! server. It stops the server when nobody has used it for a while, and cleans up.
//!
//! Invariant: only the keeper signals a server, and only while it has not waited for the server's process. Until then
//! the system does not reuse the pid.
//!
//! Each user holds a shared lock on the file `users`, which the kernel releases however the user ends. An order is an
//! empty file with the order's name (`stop`, `kill`), which exists until the keeper has carried it out. So the keeper
//! can poll both, and misses neither.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    process::{self, ExitCode, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::{interval, timeout},
};

use super::{
    family,
    home::{Account, Home, Order},
    programs::undisturbed,
    service::Launch,
};
use crate::{executable, open_files};

/// Set in a keeper's environment: the home of its server.
const MARK: &str = "LAB_KEEPER";
/// The keeper's [`Duty`], as JSON. The file exists as long as the keeper lives.
const DUTY: &str = "keeper.json";
/// How often a server is told to stop, once a second, before it is killed.
const REMINDERS: u32 = 20;

/// What a keeper has to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Duty {
    /// How the server is started, and what ends it.
    pub launch: Launch,
    /// The user that runs it, if it is not the keeper's own user.
    pub account: Option<Account>,
    /// How long it may be unused before it is stopped.
    pub idle: Duration,
    /// How often the keeper checks for users and orders.
    pub look: Duration,
    /// Whether to remove the home after the server was stopped, or, after a kill, when its owner ends.
    pub remove: bool,
}

/// Starts a keeper, which starts the server. `running` is the lock `running.lock`; it is released when both have ended.
pub fn start(home: &Home, duty: &Duty, running: File) -> anyhow::Result<process::Child> {
    for order in Order::EVERY {
        let _ = fs::remove_file(home.order_file(order));
    }
    // If the file exists, the last keeper was killed before it could clean up.
    if let Ok(last) = read_duty(home) {
        clean_up(&last.launch);
    }
    home.write_for_us(DUTY, &serde_json::to_string(duty)?)?;
    let log = home.path.join("log");
    let _ = fs::rename(&log, home.path.join("log.old"));
    let log = File::options().append(true).open(home.write_for_us("log", "")?)?;
    let mut keeper = process::Command::new(executable::path()?);
    open_files::as_before(&mut keeper)
        // The keeper does not read this, but `ps` shows it.
        .arg("keeper")
        .arg(&home.path)
        .env(MARK, &home.path)
        // `conform` kills the program that it tests by this mark. It must not kill a server that others use too.
        .env_remove(conform::program::MARK)
        .current_dir(&home.path)
        .stdin(Stdio::from(running))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start a keeper")
}

/// If this process is such a keeper, does its work and returns its exit code.
pub fn take_over() -> Option<ExitCode> {
    let path = std::env::var_os(MARK)?;
    Some(match keep(Path::new(&path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // This goes to the server's log. The process that waits for the server prints the end of the log.
            eprintln!("the keeper of this server: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn keep(path: &Path) -> anyhow::Result<()> {
    // A session of its own, so that neither Ctrl-C nor closing the terminal ends the servers.
    rustix::process::setsid().context("no session of its own")?;
    let home = Home { path: path.to_owned(), account: None };
    let duty = read_duty(&home)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stopped = runtime.block_on(look_after(&home, &duty));
    clean_up(&duty.launch);
    fs::remove_file(home.path.join(DUTY))?;
    if duty.remove && (stopped? || owner_has_gone(&home)?) {
        fs::remove_dir_all(&home.path)?;
    }
    Ok(())
}

/// Called after a server was killed. Waits until its owner ends (true), or starts it again with a new keeper (false).
fn owner_has_gone(home: &Home) -> anyhow::Result<bool> {
    // Releases the lock `running.lock`, which is our standard input.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let owner = home.lock_file("owner.lock")?;
    loop {
        // The next keeper has written this file.
        if home.path.join(DUTY).exists() {
            return Ok(false);
        }
        match owner.try_lock() {
            // The owner has ended. It may have removed the home itself.
            Ok(()) => return Ok(home.path.exists()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(200)),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

fn read_duty(home: &Home) -> anyhow::Result<Duty> {
    Ok(serde_json::from_str(&home.read(DUTY)?)?)
}

/// Starts the server and returns when it has ended: true if the keeper stopped it, false if it ended by itself.
async fn look_after(home: &Home, duty: &Duty) -> anyhow::Result<bool> {
    // From here on these signals do not end the keeper at once: it first stops its server.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // Lives as long as the server. Once it holds the exclusive lock, no new user can register.
    let mut unused = Unused::since_now(home)?;
    let mut server = Server::start(home, duty)?;
    let to_stop = tokio::select! {
        to_stop = server.is_to_stop(home, duty, &mut unused) => to_stop,
        _ = terminate.recv() => Ok(true),
        _ = interrupt.recv() => Ok(true),
        _ = hang_up.recv() => Ok(true),
    };
    server.stop(duty.launch.stop.signal()).await?;
    to_stop
}

struct Server {
    process: Child,
    /// The container that the server runs in. The process is then only the Docker client.
    container: Option<String>,
    /// Whether its processes are paused.
    paused: bool,
}

impl Server {
    fn start(home: &Home, duty: &Duty) -> anyhow::Result<Self> {
        let process = command(home, duty)?.spawn();
        Ok(Self {
            process: process.context(duty.launch.command[0].clone())?,
            container: duty.launch.container.clone(),
            paused: false,
        })
    }

    /// Its pid, as long as we have not waited for it. After that the system may reuse the pid.
    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.process.id()?).ok()?)
    }

    /// Carries out orders until the server has to stop (true) or ends by itself (false).
    async fn is_to_stop(
        &mut self,
        home: &Home,
        duty: &Duty,
        unused: &mut Unused,
    ) -> anyhow::Result<bool> {
        let mut look = interval(duty.look);
        loop {
            tokio::select! {
                _ = self.process.wait() => return Ok(false),
                _ = look.tick() => {}
            }
            let orders = Order::EVERY.map(|order| (order, home.order_file(order)));
            for (order, file) in orders.into_iter().filter(|(_, file)| file.exists()) {
                if order == Order::Stop {
                    return Ok(true);
                }
                self.obey(order)?;
                fs::remove_file(file)?;
            }
            if unused.is_longer_than(duty.idle)? {
                return Ok(true);
            }
        }
    }

    fn obey(&mut self, order: Order) -> anyhow::Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        match order {
            Order::Kill => {
                if let Some(name) = &self.container {
                    docker("kill", name);
                }
                family::kill(pid)?;
            }
            Order::Pause => {
                match &self.container {
                    Some(name) => docker("pause", name),
                    None => family::pause(pid)?,
                }
                self.paused = true;
            }
            Order::Resume | Order::Stop => {
                match &self.container {
                    _ if !self.paused => {}
                    Some(name) => docker("unpause", name),
                    None => family::resume(pid)?,
                }
                self.paused = false;
            }
        }
        Ok(())
    }

    /// Tells the server to stop, once a second: a server that is just starting may miss the signal. In the end kills
    /// it.
    async fn stop(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.obey(Order::Resume)?;
        let reminders = if signal == Signal::KILL { 0 } else { REMINDERS };
        for _ in 0..reminders {
            let Some(pid) = self.pid() else { return Ok(()) };
            kill_process(pid, signal)?;
            if timeout(Duration::from_secs(1), self.process.wait()).await.is_ok() {
                return Ok(());
            }
        }
        self.obey(Order::Kill)?;
        self.process.wait().await?;
        Ok(())
    }
}

/// The command that becomes the server. Its standard input is the file `running.lock`, and the lock lasts as long as
/// any process holds it. So no second server is started on the data of a server that has lost its keeper.
fn command(home: &Home, duty: &Duty) -> anyhow::Result<Command> {
    let mut words = Vec::new();
    // With `setpriv` Linux stops the server if its keeper is killed. Elsewhere the server goes on without a keeper.
    let with_keeper = ["setpriv", "--pdeathsig", duty.launch.stop.name()];
    // BusyBox's `setpriv` does not know this option.
    let known = process::Command::new("setpriv").args(&with_keeper[1..]).arg("true").output();
    if known.is_ok_and(|output| output.status.success()) {
        words.extend(with_keeper);
    }
    words.extend(duty.launch.command.iter().map(String::as_str));
    let (program, arguments) = words.split_first().context("a launch without a program")?;
    let mut server = Command::new(program);
    undisturbed(server.as_std_mut())
        .args(arguments)
        .envs(duty.launch.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&home.path);
    if let Some(account) = duty.account {
        server.uid(account.uid).gid(account.gid);
    }
    Ok(server)
}

/// Runs a Docker command on a container. An error message goes to the server's log.
fn docker(what: &str, container: &str) {
    let mut docker = process::Command::new("docker");
    let _ = docker.args([what, container]).stdin(Stdio::null()).stdout(Stdio::null()).status();
}

/// Ends what the server leaves behind, such as Erlang's port mapper.
fn clean_up(launch: &Launch) {
    if let Some((program, arguments)) = launch.after.split_first() {
        let mut after = process::Command::new(program);
        after.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = after.status();
    }
}

/// How long nobody has used the server.
struct Unused {
    users: File,
    since: Instant,
    /// When the last user came.
    came: SystemTime,
}

impl Unused {
    fn since_now(home: &Home) -> anyhow::Result<Self> {
        let users = home.lock_file("users")?;
        let came = users.metadata()?.modified()?;
        Ok(Self { users, since: Instant::now(), came })
    }

    /// If this returns true, it holds the lock, and no new user can come.
    fn is_longer_than(&mut self, idle: Duration) -> io::Result<bool> {
        match self.users.try_lock() {
            Ok(()) => {
                let came = self.users.metadata()?.modified()?;
                if came != self.came {
                    // A user came and left between two checks.
                    (self.came, self.since) = (came, Instant::now());
                }
                if self.since.elapsed() >= idle {
                    return Ok(true);
                }
                self.users.unlock()?;
            }
            Err(TryLockError::WouldBlock) => self.since = Instant::now(),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(false)
    }
}
