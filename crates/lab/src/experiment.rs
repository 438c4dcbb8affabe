//! How is a claim tried? An [`Experiment`] states it and runs the code that could refute it.

use std::{any::Any, fmt, ops::Deref, panic::AssertUnwindSafe, sync::Arc};

use anyhow::{Context, anyhow, ensure};
use clap::{ArgMatches, Args, Command, builder::ValueParser};
use futures_util::FutureExt;
use serde::Serialize;
use sqlx::migrate::Migrator;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    child::{Child, ChildBuilder},
    database::Database,
    erased::Start,
    group::{ContainerEngine, PgBouncer, ServerGroup},
    keys::Keys,
    needs::Need,
    queues::Queues,
    recorder::{Event, Recorder, Report},
    sabotage::Sabotage,
    skip::why_skipped,
    stack::{self, Service, own::OwnServer},
    subject::Subject,
    whiteboard,
};

/// A claim, and the code that tries to refute it.
#[derive(Clone)]
pub struct Experiment {
    /// Its name on the command line and in the guide.
    pub name: &'static str,
    /// One sentence that could be false.
    pub claim: &'static str,
    /// The arguments with which the tests run it: seconds, not tens of them.
    pub quick: &'static [&'static str],
    /// What it needs in addition to the servers of its answer.
    pub needs: &'static [Need],
    /// Mistakes in the answer's code that its checks find: at least one.
    pub sabotages: Vec<Sabotage>,
    params: fn(Command) -> Command,
    start: Start<Lab>,
}

impl Experiment {
    /// Wraps `async fn run(params: Params, lab: Lab) -> anyhow::Result<()>`.
    pub fn new<P, F, W>(
        name: &'static str,
        claim: &'static str,
        quick: &'static [&'static str],
        run: F,
    ) -> Self
    where
        P: Args,
        F: Fn(P, Lab) -> W + Send + Sync + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self {
            name,
            claim,
            quick,
            needs: &[],
            sabotages: Vec::new(),
            params: |command| P::augment_args(command),
            start: Arc::new(move |matches, lab| {
                Ok(Box::pin(run(P::from_arg_matches(matches)?, lab)))
            }),
        }
    }

    /// Declares what it needs in addition to the servers of its answer: `.needs(&[Need::Own(Service::Postgres)])`.
    pub fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// Adds a mistake in the answer's code, and the check that finds it.
    pub fn sabotage(mut self, sabotage: Sabotage) -> Self {
        self.sabotages.push(sabotage);
        self
    }

    /// Everything that it needs, including the servers of its answer.
    pub fn all_needs(&self, answer: impl Into<Subject>) -> Vec<Need> {
        let shared = answer.into().needs.iter().copied().map(Need::Shared);
        shared.chain(self.needs.iter().copied()).collect()
    }

    /// Why it cannot run on this machine. Cheap: it looks for programs and asks no server.
    pub fn obstacle(&self, answer: impl Into<Subject>) -> Option<String> {
        self.all_needs(answer).into_iter().find_map(Need::obstacle)
    }

    /// The command that parses the parameters: the same for the command line, the form, the tests.
    pub fn command(&self) -> Command {
        let command = Command::new(self.name).about(self.claim);
        let sabotages = self.sabotages.iter().map(ToString::to_string).collect::<Vec<_>>();
        (self.params)(command).after_help(sabotages.join("\n")).no_binary_name(true)
    }

    /// The parameters, for a form.
    pub fn params(&self) -> Vec<Param> {
        self.command().get_arguments().filter_map(Param::of).collect()
    }

    /// Runs it with the given arguments (`["--links", "1000"]`) and sends events while it runs. To stop it, drop the
    /// future: everything that it started ends too.
    ///
    /// Arguments that do not parse are an error; a run that fails is a report that says so.
    pub async fn run(
        &self,
        answer: impl Into<Subject>,
        arguments: &[String],
        events: UnboundedSender<Event>,
    ) -> Result<Report, clap::Error> {
        let matches = self.command().try_get_matches_from(arguments)?;
        Ok(self.run_matches(answer.into(), &matches, events).await)
    }

    pub(crate) async fn run_matches(
        &self,
        answer: Subject,
        matches: &ArgMatches,
        events: UnboundedSender<Event>,
    ) -> Report {
        let report = Report {
            answer: answer.name.to_owned(),
            experiment: self.name.to_owned(),
            claim: self.claim.to_owned(),
            whiteboard: whiteboard::is_asked_for(),
            params: given(&self.command(), matches),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            servers: Vec::new(),
            seconds: 0.0,
            text: Vec::new(),
            figures: Vec::new(),
            tables: Vec::new(),
            series: Vec::new(),
            checks: Vec::new(),
            skipped: None,
            error: None,
        };
        let recorder = Recorder::new(report, events);
        if let Some(obstacle) = self.obstacle(answer) {
            recorder.end(None, Some(obstacle));
            return recorder.report();
        }
        for need in self.needs {
            if let Err(error) = need.bring().await {
                recorder.end(Some(format!("{error:#}")), None);
                return recorder.report();
            }
        }
        let needs = self.all_needs(answer);
        let lab = Lab { answer, needs, recorder: recorder.clone() };
        let outcome = match (self.start)(matches, lab) {
            // A panic must not go unreported: the report has to name it.
            Ok(work) => AssertUnwindSafe(work)
                .catch_unwind()
                .await
                .unwrap_or_else(|panic| Err(said(&*panic))),
            Err(error) => Err(error),
        };
        if whiteboard::is_asked_for() && !whiteboard::was_served() {
            let why = "it starts no server, so there is no whiteboard version to try";
            recorder.end(None, Some(why.to_owned()));
        } else if let Err(error) = outcome {
            match why_skipped(&error) {
                Some(why) => recorder.end(None, Some(why.to_owned())),
                None => recorder.end(Some(format!("{error:#}")), None),
            }
        }
        recorder.report()
    }
}

impl fmt::Debug for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Experiment").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> anyhow::Error {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    anyhow!("it panicked: {}", words.unwrap_or("without a message"))
}

/// The parameters of a run as the report shows them, defaults included.
fn given(command: &Command, matches: &ArgMatches) -> serde_json::Map<String, serde_json::Value> {
    let value = |argument: &clap::Arg| {
        let raw = matches.get_raw(argument.get_id().as_str())?;
        let raw: Vec<_> = raw.map(|value| value.to_string_lossy()).collect();
        Some((argument.get_id().to_string(), raw.join(",").into()))
    };
    command.get_arguments().filter_map(value).collect()
}

/// One parameter of an experiment, as a form shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Param {
    /// The flag without its dashes.
    pub name: String,
    /// What it means.
    pub help: String,
    /// Its default value.
    pub default: String,
    /// Whether it takes only numbers.
    pub number: bool,
    /// The values to choose from, if it takes only a few.
    pub choices: Vec<String>,
}

impl Param {
    fn of(argument: &clap::Arg) -> Option<Self> {
        let parser = argument.get_value_parser();
        Some(Self {
            name: argument.get_long()?.to_owned(),
            help: argument.get_help().map(ToString::to_string).unwrap_or_default(),
            default: argument.get_default_values().first()?.to_string_lossy().into_owned(),
            number: is_number(parser),
            choices: parser
                .possible_values()
                .into_iter()
                .flatten()
                .map(|value| value.get_name().to_owned())
                .collect(),
        })
    }
}

fn is_number(parser: &ValueParser) -> bool {
    use std::any::TypeId;
    let numbers = [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i32>(),
        TypeId::of::<i64>(),
        TypeId::of::<f32>(),
        TypeId::of::<f64>(),
    ];
    numbers.iter().any(|number| parser.type_id() == *number)
}

/// Parses a waiting time in seconds: `value_parser = lab::experiment::seconds`.
pub fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    // NaN is in no range.
    if (0.1..=60.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("is not between 0.1 and 60".to_owned())
    }
}

/// What a running experiment works with: real servers, real processes, and the [`Recorder`], whose
/// methods it has.
#[derive(Clone, Debug)]
pub struct Lab {
    answer: Subject,
    /// What the experiment has declared.
    needs: Vec<Need>,
    recorder: Recorder,
}

impl Lab {
    /// Without the declaration we could not check for it before the run: on another machine the run would fail half-way
    /// instead of being skipped.
    fn must_be_declared(&self, need: Need) -> anyhow::Result<()> {
        ensure!(self.needs.contains(&need), "declare it: .needs(&[Need::{need:?}])");
        Ok(())
    }

    /// The address of a shared server, found or started.
    pub async fn server(&self, service: Service) -> anyhow::Result<String> {
        self.must_be_declared(Need::Shared(service))?;
        let server = stack::server(service).await?;
        self.recorder.server(server.version().await?);
        Ok(server.url)
    }

    /// A fresh database with the answer's schema, deleted when this value is dropped.
    pub async fn database(&self) -> anyhow::Result<Database> {
        self.server(Service::Postgres).await?;
        let migrations = self.answer.migrations.context("this answer has no migrations")?;
        Database::fresh(self.answer.name, migrations).await
    }

    /// A fresh database for one of several services of the answer, with that service's schema:
    /// `lab.database_named("inventory", &MIGRATIONS)`.
    pub async fn database_named(
        &self,
        part: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<Database> {
        self.server(Service::Postgres).await?;
        Database::fresh_part(self.answer.name, part, migrations).await
    }

    /// A prefix for keys in Redis. Its keys are deleted when this value is dropped.
    pub async fn keys(&self) -> anyhow::Result<Keys> {
        self.server(Service::Redis).await?;
        Keys::fresh(self.answer.name).await
    }

    /// A prefix for names of queues and exchanges in RabbitMQ.
    pub async fn queues(&self) -> anyhow::Result<Queues> {
        self.server(Service::RabbitMq).await?;
        Queues::fresh(self.answer.name).await
    }

    /// A PostgreSQL, Redis or RabbitMQ of the experiment's own, which it may kill and pause.
    pub async fn own_server(&self, service: Service) -> anyhow::Result<OwnServer> {
        self.must_be_declared(Need::Own(service))?;
        let server = OwnServer::start(service).await?;
        self.recorder.server(server.version().await?);
        Ok(server)
    }

    /// A group of servers of the experiment's own: `lab.group::<EtcdGroup>()`. It is declared as
    /// `Need::Group(EtcdGroup::GROUP)`.
    pub async fn group<G: ServerGroup>(&self) -> anyhow::Result<G> {
        self.must_be_declared(Need::Group(G::GROUP))?;
        let group = G::start().await?;
        if let Some(member) = group.members().first() {
            self.recorder.server(member.version().await?);
        }
        Ok(group)
    }

    /// A PgBouncer of the experiment's own, in front of the PostgreSQL of this URL: see [`PgBouncer::in_front_of`].
    pub async fn pgbouncer(
        &self,
        postgres: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<PgBouncer> {
        self.must_be_declared(Need::Own(Service::PgBouncer))?;
        let pooler = PgBouncer::in_front_of(postgres, settings).await?;
        self.recorder.server(pooler.server.version().await?);
        Ok(pooler)
    }

    /// A container engine of the experiment's own, without any image.
    pub async fn container_engine(&self) -> anyhow::Result<ContainerEngine> {
        self.must_be_declared(Need::Tool(Service::ContainerEngine))?;
        let engine = ContainerEngine::start().await?;
        self.recorder.server(engine.version().await?);
        Ok(engine)
    }

    /// Prepares the answer's server as a separate process: `lab.serve().arg("--workers").arg("2")`.
    pub fn serve(&self) -> ChildBuilder {
        Child::serve(self.answer.name)
    }
}

impl Deref for Lab {
    type Target = Recorder;

    fn deref(&self) -> &Recorder {
        &self.recorder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Args, Clone, Debug)]
    struct Nothing {}

    const SOME: Subject = Subject { name: "some", needs: &[], migrations: None };

    #[tokio::test]
    async fn an_experiment_that_panics_is_a_report_that_says_so() {
        let panics = Experiment::new("panics", "It does not panic", &[], |Nothing {}, _| async {
            panic!("no {}", "way")
        });
        let (events, _unread) = tokio::sync::mpsc::unbounded_channel();
        let report = panics.run(SOME, &[], events).await.unwrap();
        assert_eq!(report.error.as_deref(), Some("it panicked: no way"));
        assert!(!report.held());
    }

    #[tokio::test]
    async fn what_was_not_declared_is_not_given() {
        let takes = Experiment::new("takes", "It takes", &[], |Nothing {}, lab: Lab| async move {
            lab.server(Service::Redis).await.map(drop)
        });
        let (events, _unread) = tokio::sync::mpsc::unbounded_channel();
        let report = takes.run(SOME, &[], events).await.unwrap();
        let error = "declare it: .needs(&[Need::Shared(Redis)])";
        assert_eq!(report.error.as_deref(), Some(error));
    }
}
