//! Who starts a private server, who shares it, who stops it? The first process that needs it starts it, all processes
//! share it, and its [`keeper`] stops it when it has had no user for ten minutes.

use std::{
    fmt,
    fs::{self, File},
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::{
    announce, container,
    home::{Home, Order},
    keeper::{self, Duty},
    probe,
    programs::Programs,
    service::{Launch, Service},
};

/// How long a server may take to start. RabbitMQ takes four seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a server that is stopping may take to end.
const LAST_WORDS: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// A private server, whether it runs or not: what it is, where it lives, what runs it.
pub struct Place {
    pub service: Service,
    pub home: Home,
    /// The programs of the server. `None` if it runs in a container.
    pub programs: Option<Programs>,
    /// Changes how this server is started.
    pub adapt: Box<dyn Fn(&mut Launch) + Send + Sync>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.service, self.home.path.display())
    }
}

impl Place {
    /// A server that is started in the usual way.
    pub fn new(service: Service, home: Home, programs: Option<Programs>) -> Self {
        Self { service, home, programs, adapt: Box::new(|_| {}) }
    }

    async fn launch(&self, port: u16) -> anyhow::Result<Launch> {
        let mut launch = match &self.programs {
            Some(programs) => (self.service.about().launch)(&self.home, programs, port).await?,
            None => container::launch(self.service, &self.home, port)?,
        };
        (self.adapt)(&mut launch);
        Ok(launch)
    }

    /// Its address.
    pub fn url(&self) -> anyhow::Result<String> {
        (self.service.about().url)(&self.home)
    }
}

/// The address of the shared server, if it has ever been started.
pub fn address(service: Service) -> Option<String> {
    (service.about().url)(&service.shared_home().ok()?).ok()
}

/// Starts the shared server, or finds it running. Returns its address and our registration as a user.
pub async fn join(service: Service, programs: Programs) -> anyhow::Result<(String, File)> {
    let place = Place::new(service, service.shared_home()?, Some(programs));
    let home = &place.home;
    home.create()?;
    let _turn = turn(service, home).await?;
    let came = Instant::now();
    loop {
        if let Some(running) = home.claim()? {
            let begun = Instant::now();
            announce(service, "starting a private server …");
            let user = start(&place, running, idle(), false).await?;
            let took = begun.elapsed().as_secs_f64();
            announce(
                service,
                format_args!("ready after {took:.1} s (private, {})", home.path.display()),
            );
            return Ok((place.url()?, user));
        }
        if let Some(user) = home.enter()? {
            let url = place.url()?;
            match probe::answers(service, &url).await {
                Ok(()) => {
                    announce(service, "using the private server that runs already");
                    return Ok((url, user));
                }
                Err(error) if came.elapsed() > LAST_WORDS => {
                    return Err(error).with_context(|| does_not_answer(&place));
                }
                // The server may be stopping.
                Err(_) => {}
            }
        }
        // The server runs, but its keeper is stopping it.
        if came.elapsed() > PATIENCE {
            bail!("{}", lost_its_keeper(service, home));
        }
        sleep(POLL).await;
    }
}

/// Starts the server of this home, whose lock is `running`, and waits until it answers. The keeper stops the server
/// when it has had no user for `idle`, and then removes the home if `own` is set.
pub async fn start(
    place: &Place,
    running: File,
    idle: Duration,
    own: bool,
) -> anyhow::Result<File> {
    let home = &place.home;
    // Before the keeper starts, so that it never sees a server without a user.
    let user = enter(home).await?;
    let mut port = home.free_port()?;
    for attempt in 1.. {
        let launch = place.launch(port).await?;
        // An experiment that kills its server waits until the keeper notices the order.
        let look = Duration::from_millis(if own { 20 } else { 200 });
        let duty = Duty { launch, account: home.account, idle, look, remove: own };
        let mut keeper = keeper::start(home, &duty, running.try_clone()?)?;
        match ready(place, &mut keeper).await {
            Ok(()) => {
                // The keeper may end while we run, and a thread has to collect its exit status.
                std::thread::spawn(move || keeper.wait());
                return Ok(user);
            }
            // Another program took the port before the server could.
            Err(_) if attempt < 3 && std::net::TcpListener::bind(("127.0.0.1", port)).is_err() => {
                keeper.wait()?;
                fs::remove_file(home.path.join("port"))?;
                port = home.free_port()?;
            }
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop ends by returning")
}

/// Registers as the first user. The last keeper may still hold the lock for a moment.
async fn enter(home: &Home) -> anyhow::Result<File> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(user) = home.enter()? {
            return Ok(user);
        }
        sleep(POLL).await;
    }
    bail!("another process holds the lock on {}", home.path.join("users").display())
}

/// Waits for its turn: only one process at a time starts or stops a server.
async fn turn(service: Service, home: &Home) -> anyhow::Result<File> {
    let lock = home.lock_file("start.lock")?;
    if lock.try_lock().is_err() {
        announce(service, "waiting for another process that starts or stops it …");
        return Ok(tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??);
    }
    Ok(lock)
}

/// Waits until the server answers.
async fn ready(place: &Place, keeper: &mut Child) -> anyhow::Result<()> {
    let Place { service, home, .. } = place;
    // A socket in the file system has no port.
    let port = url::Url::parse(&place.url()?)?.port();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = keeper.try_wait()? {
            bail!("{service} did not start ({status}). {}", last_words(*service, home));
        }
        if Instant::now() > deadline {
            home.order(Order::Stop)?;
            bail!("{service} took more than a minute to start. {}", last_words(*service, home));
        }
        let listens =
            port.is_none_or(|port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        if listens && probe::answers(*service, &place.url()?).await.is_ok() {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// Stops the shared server, even if it is in use. Returns whether it ran.
pub async fn stop(service: Service) -> anyhow::Result<bool> {
    let home = service.shared_home()?;
    if !home.is_running()? {
        return Ok(false);
    }
    let _turn = turn(service, &home).await?;
    home.order(Order::Stop)?;
    let deadline = Instant::now() + PATIENCE;
    while home.is_running()? {
        if Instant::now() > deadline {
            bail!("{}", lost_its_keeper(service, &home));
        }
        sleep(POLL).await;
    }
    Ok(true)
}

/// Ten minutes, unless `STACK_IDLE_SECONDS` says otherwise.
fn idle() -> Duration {
    let given = std::env::var("STACK_IDLE_SECONDS").ok();
    Duration::from_secs(given.and_then(|seconds| seconds.parse().ok()).unwrap_or(600))
}

fn last_words(service: Service, home: &Home) -> String {
    format!(
        "The end of its log ({}):\n\n{}\n\nIf its data is damaged, run `rm -rf {}` to start with a fresh one, or \
         set {}=… to use another server.",
        home.path.join("log").display(),
        home.log_tail(),
        home.path.display(),
        service.variable(),
    )
}

fn does_not_answer(Place { service, home, .. }: &Place) -> String {
    format!("{service} runs but does not answer. {}", last_words(*service, home))
}

fn lost_its_keeper(service: Service, home: &Home) -> String {
    format!(
        "{service} still runs, but its keeper process was killed. End it with\n\n    kill $(lsof -t {})\n\n\
         and try again.",
        home.path.join("running.lock").display(),
    )
}
