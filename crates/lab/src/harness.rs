//! How does an answer test itself? `cargo test -p url-shortener` runs its experiments with quick parameters, the cases
//! of its table of calls, the table of its whiteboard version's mistakes, and its own tests, in parallel, each on a
//! runtime of its own.
//!
//! Invariant: the plain cases share one server, because each uses names of its own. A case that loads or kills its
//! server has a server of its own.

mod whiteboard;

use std::{
    any::Any,
    fmt,
    num::NonZeroUsize,
    process::ExitCode,
    sync::{self, Arc, LazyLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use conform::{
    case::{Case, Kind},
    target::{Restart, Target},
};
use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Failed};
pub use libtest_mimic::{Completion, Trial};
use tokio::{
    process::Command,
    runtime::{Builder, Runtime},
    sync::{Mutex, mpsc::unbounded_channel},
    time::sleep,
};

use crate::{
    Answer, Experiment,
    child::Child,
    database::Database,
    report::terminal,
    serve::Words,
    stack::{self, Service},
    take_over, why_skipped,
};

pub use conform::{
    case::Outcome,
    target::{eventually, within},
};

/// How many tests of an answer run at once for each core. Most of them wait for servers most of the time; with more,
/// experiments about time-outs find a machine that is too busy.
const FOR_EACH_CORE: usize = 2;
/// How many run at once with a given PostgreSQL, whatever the number of cores: by default it accepts a hundred clients,
/// and an experiment may have forty connections.
const ON_A_GIVEN_SERVER: usize = 2;

/// The cores of this machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// `tests![a, b]`: a function `tests()` that lists them. A forgotten test is dead code, and the compiler warns.
#[macro_export]
macro_rules! tests {
    ($($name:path),* $(,)?) => {
        /// The tests of this file.
        pub fn tests() -> Vec<$crate::harness::Trial> {
            vec![$($crate::harness::trial(module_path!(), stringify!($name), || async {
                $name().await.map(|()| $crate::harness::Completion::Completed)
            })),*]
        }
    };
}

/// A test named after its module and its function. If it cannot run here, it says so with [`skip`](crate::skip()).
pub fn trial<F, W>(module: &str, name: &str, test: F) -> Trial
where
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = anyhow::Result<Completion>>,
{
    let module = module.rsplit("::").next().unwrap_or_default();
    let name = format!("{module}::{name}");
    Trial::ignorable_test(name.clone(), move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let begun = Instant::now();
        let outcome = runtime.block_on(test());
        TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((begun.elapsed(), name));
        outcome.or_else(|error| match why_skipped(&error) {
            Some(why) => Ok(Completion::ignored_with(why)),
            None => Err(Failed::from(format!("{error:#}"))),
        })
    })
}

/// How long each test took.
static TIMES: sync::Mutex<Vec<(Duration, String)>> = sync::Mutex::new(Vec::new());

/// With `SLOWEST=10`, names the ten slowest tests at the end.
fn show_the_slowest() {
    let many = std::env::var("SLOWEST").ok().and_then(|many| many.parse().ok()).unwrap_or(0);
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    times.sort_unstable_by(|one, other| other.cmp(one));
    for (time, name) in times.iter().take(many) {
        eprintln!("{:>6.1} s  {name}", time.as_secs_f64());
    }
}

/// A running program and its databases, keys and queues. All of them are removed when this is dropped.
pub struct Served {
    url: String,
    words: Words,
    restart: Restart,
    /// Dropped last, so that no database goes before its program.
    _owned: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Served").field(&self.url).finish()
    }
}

impl Served {
    /// This child, which a case may kill and start again.
    pub fn new(child: Child, owned: impl Any + Send + Sync) -> Self {
        let url = child.url().to_owned();
        let child = Arc::new(Mutex::new(child));
        let restart: Restart = Arc::new(move || {
            let child = Arc::clone(&child);
            Box::pin(async move {
                let mut child = child.lock().await;
                child.kill().await?;
                child.restart().await
            })
        });
        Self { url, words: Words::default(), restart, _owned: Box::new(owned) }
    }

    /// Sets what `{name}` stands for in the lines to try: see [`Serving::word`](crate::Serving::word).
    pub fn word(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.words.add(name, value);
        self
    }

    /// The target for one case: with names of its own and a record of its own requests.
    fn target(&self) -> anyhow::Result<Target> {
        Target::new(&self.url, Some(Arc::clone(&self.restart)))
    }
}

/// Waits until a session waits for a lock in this database. `what` describes it in the error message.
pub async fn somebody_waits(what: &str, database: &Database) -> Outcome {
    let pool = database.pool().await?;
    eventually(what, async || {
        let waiting = r#"
            select count(*)
            from pg_stat_activity
            where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0
        "#;
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await?;
        Ok((waiting > 0).then_some(()))
    })
    .await
}

/// Starts the answer's program for its cases.
pub type Serve = fn() -> BoxFuture<'static, anyhow::Result<Served>>;

/// The whole `main` of an answer's test binary.
pub fn run(answer: Answer, serve: Serve, tests: Vec<Trial>) -> ExitCode {
    let answers = [answer];
    if let Some(code) = take_over(&answers) {
        return code;
    }
    let [answer] = answers;
    if let Some(code) = whiteboard::take_over(&answer, serve) {
        return code;
    }
    let mut trials = experiments(&answer);
    trials.extend(answer.suite.cases.iter().map(|&case| case_trial(case, serve)));
    trials.extend(whiteboard::trials(&answer));
    trials.push(try_it_trial(answer.try_it, serve));
    trials.extend(tests);
    let at_once = FOR_EACH_CORE * cores();
    let given = stack::is_given(Service::Postgres);
    run_trials(trials, if given { at_once.min(ON_A_GIVEN_SERVER) } else { at_once })
}

/// Runs these, `at_once` in parallel unless `--test-threads` says otherwise.
pub fn run_trials(trials: Vec<Trial>, at_once: usize) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(at_once));
    let conclusion = libtest_mimic::run(&arguments, trials);
    show_the_slowest();
    SHARED_RUNTIME.block_on(async { SHARED.lock().await.take() });
    conclusion.exit_code()
}

/// Each experiment, with its quick parameters: every check must hold.
pub fn experiments(answer: &Answer) -> Vec<Trial> {
    let experiment_trial = |experiment: &Experiment| {
        let (answer, experiment) = (answer.clone(), experiment.clone());
        trial("experiment", experiment.name, move || async move {
            let quick: Vec<_> = experiment.quick.iter().map(|&word| word.to_owned()).collect();
            let (events, _unread) = unbounded_channel();
            let report = experiment
                .run(&answer, &quick, events)
                .await
                .map_err(|error| anyhow!("its quick parameters do not parse: {error}"))?;
            if let Some(why) = report.skipped {
                return Ok(Completion::ignored_with(why));
            }
            if !report.held() {
                bail!("{}", terminal::show(&report));
            }
            Ok(Completion::Completed)
        })
    };
    answer.experiments.iter().map(experiment_trial).collect()
}

/// The server of the plain cases. It outlives the runtime of the first case, so it has a runtime of its own.
static SHARED: Mutex<Option<Arc<Served>>> = Mutex::const_new(None);
static SHARED_RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("a process can have a second runtime"));

async fn shared(serve: Serve) -> anyhow::Result<Arc<Served>> {
    let mut shared = SHARED.lock().await;
    if let Some(served) = shared.as_ref() {
        return Ok(Arc::clone(served));
    }
    let served = Arc::new(SHARED_RUNTIME.spawn(serve()).await??);
    *shared = Some(Arc::clone(&served));
    Ok(served)
}

/// The lines that a server prints work as they stand, and also a second time: a reader starts a server more than once.
fn try_it_trial(lines: &'static [&'static str], serve: Serve) -> Trial {
    trial("serve", "the_lines_that_a_server_prints_work_twice", move || async move {
        let served = serve().await?;
        let script = served.words.fill(&lines.join("\n"), &served.url);
        for time in ["first", "second"] {
            let output = Command::new("sh").arg("-ec").arg(&script).output().await?;
            if output.status.code() == Some(127) {
                return Ok(Completion::ignored_with("needs curl"));
            }
            let shown = String::from_utf8_lossy(&output.stdout);
            // A rate limiter's 429 is not a failure here, and its problem has a type of its own.
            ensure!(
                output.status.success() && shown.ends_with('\n') && !shown.contains("about:blank"),
                "the {time} time: {}\n{script}\n{shown}",
                output.status
            );
            // The lines make names from the current second.
            sleep(Duration::from_secs(1)).await;
        }
        Ok(Completion::Completed)
    })
}

fn case_trial(case: Case, serve: Serve) -> Trial {
    trial("case", case.name, move || async move {
        let served = match case.kind {
            Kind::Plain => shared(serve).await?,
            Kind::Load | Kind::Restart => Arc::new(serve().await?),
        };
        (case.run)(&served.target()?).await?;
        if case.kind != Kind::Restart {
            // A reader's server keeps its data between two runs of `conform`, and both runs must have the same result.
            let again = (case.run)(&served.target()?).await;
            again.context("the second time on one server")?;
        }
        Ok(Completion::Completed)
    })
}
