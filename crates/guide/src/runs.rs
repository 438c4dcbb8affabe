//! How does a page run an experiment? By a POST. The response streams the events of the run.

use std::{collections::VecDeque, convert::Infallible, path::PathBuf, sync::Arc};

use anyhow::bail;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use lab::{Answer, Experiment, Report, child, recorder::Event};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    group,
    prediction::Predicted,
    problem::{problem, problem_with},
    program::{Built, Programs},
    reader::Reader,
    record::Measured,
    result,
    told::{Told, latest},
    turn::{Named, Turn, Turns},
};

/// How many of a child's last lines are kept for an error message.
const LINES: usize = 20;

/// Runs experiments, one at a time, each in a process of its own.
#[derive(Clone, Debug)]
pub struct Runs {
    answers: Arc<[Answer]>,
    programs: Programs,
    reader: Reader,
    turns: Turns,
    tasks: TaskTracker,
}

impl Runs {
    /// Whether an experiment runs now.
    pub fn is_running(&self) -> bool {
        self.turns.running().is_some()
    }

    /// Starts with no run. All runs end when `stopping` is cancelled.
    pub fn new(
        answers: Vec<Answer>,
        programs: Programs,
        reader: Reader,
        stopping: CancellationToken,
    ) -> Self {
        let (turns, tasks) = (Turns::new(stopping), TaskTracker::new());
        Self { answers: answers.into(), programs, reader, turns, tasks }
    }

    /// Waits until all runs have ended. Call this after they were told to stop.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn find(&self, answer: &str, experiment: &str) -> Option<(Answer, Experiment)> {
        let answer = self.answers.iter().find(|known| known.name == answer)?;
        Some((answer.clone(), answer.experiment(experiment)?.clone()))
    }
}

/// `GET /api/running`: the experiment that runs, or null.
pub async fn running(State(runs): State<Runs>) -> Json<Option<Named>> {
    Json(runs.turns.running())
}

/// `POST /api/experiments/{answer}/{name}` with the parameters as a JSON object; with the member `whiteboard`, it tries
/// the whiteboard version. It may hold a [`Predicted`] too.
///
/// 200 and a stream of server-sent events: `building`, `progress`, `piece`, and in the end `report`. 404 if there is no
/// such experiment, 409 with the name of the other experiment if another one runs, 422 if a parameter is invalid.
/// Closing the connection stops the run and everything that it started.
pub async fn run(
    State(runs): State<Runs>,
    Path((answer, name)): Path<(String, String)>,
    Json(mut params): Json<Map<String, Value>>,
) -> Response {
    let Some((answer, experiment)) = runs.find(&answer, &name) else {
        return problem(StatusCode::NOT_FOUND, "there is no such experiment");
    };
    // A checkbox of the form, not a parameter of the experiment.
    let whiteboard = params.remove("whiteboard").is_some();
    let predicted = match Predicted::take(&mut params) {
        Ok(predicted) => predicted,
        Err(error) => return problem(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    };
    let mut arguments: Vec<_> = params.iter().map(argument).collect();
    if let Err(error) = experiment.command().try_get_matches_from(&arguments) {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string().trim());
    }
    arguments.extend(whiteboard.then(|| "--whiteboard".to_owned()));
    let named = Named { answer: answer.name.to_owned(), experiment: name };
    let turn = match runs.turns.take(named).await {
        Ok(turn) => turn,
        Err(other) => return refused(&other),
    };
    // The stream is the run's owner: when the client has gone, it is dropped, and the run is stopped.
    let stop_with_stream = turn.stop.clone().drop_guard();
    // No bound is needed: the experiment's report keeps the same data in memory anyway.
    let (tell, seen) = mpsc::unbounded_channel();
    let Runs { programs, reader, .. } = runs.clone();
    let run = Run { answer, experiment, arguments, predicted, programs, reader, tell };
    runs.tasks.spawn(run.go(turn));
    Sse::new(events(seen, stop_with_stream)).keep_alive(KeepAlive::default()).into_response()
}

fn argument((name, value): (&String, &Value)) -> String {
    match value {
        Value::String(text) => format!("--{name}={text}"),
        other => format!("--{name}={other}"),
    }
}

fn refused(other: &Named) -> Response {
    let detail = format!("{} {} is running: stop it, or wait", other.answer, other.experiment);
    let running = Map::from_iter([("running".to_owned(), json!(other))]);
    problem_with(StatusCode::CONFLICT, &detail, running)
}

fn events(
    seen: mpsc::UnboundedReceiver<Told>,
    stop_with_stream: impl Send + 'static,
) -> impl Stream<Item = Result<axum::response::sse::Event, Infallible>> {
    stream::unfold((seen, stop_with_stream), async |(mut seen, guard)| {
        let mut batch = Vec::new();
        let some = seen.recv_many(&mut batch, 1_000).await > 0;
        some.then(|| (latest(batch), (seen, guard)))
    })
    .flat_map(|told| stream::iter(told.into_iter().map(|told| Ok(told.sse()))))
}

/// One run, from the build to the last event.
struct Run {
    answer: Answer,
    experiment: Experiment,
    arguments: Vec<String>,
    predicted: Predicted,
    programs: Programs,
    reader: Reader,
    tell: UnboundedSender<Told>,
}

impl Run {
    async fn go(self, turn: Turn) {
        let last = self.build_and_run(&turn.stop).await;
        // Give the turn back before the page learns of the end, so that the page can start the next run at once.
        drop(turn);
        let last = match last {
            Ok(None) => return,
            Ok(Some(last)) => last,
            Err(error) => Told::failed("Broke off", &format!("{error:#}")),
        };
        self.tell(last);
    }

    /// Sends an event. If the page has gone, the event is dropped.
    fn tell(&self, told: Told) {
        let _ = self.tell.send(told);
    }

    /// Returns the last event, or `None` if the run was stopped.
    async fn build_and_run(&self, stop: &CancellationToken) -> anyhow::Result<Option<Told>> {
        let building = |words| self.tell(Told::Building(words));
        match self.programs.of(&self.answer, stop, building).await? {
            Built::Stopped => Ok(None),
            Built::Refused(words) => Ok(Some(Told::failed("It does not compile", &words))),
            Built::Program(program, code) => self.run(program, code.as_deref(), stop).await,
        }
    }

    async fn run(
        &self,
        program: PathBuf,
        code: Option<&str>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Told>> {
        let mut command = child::command(program);
        command.args([self.answer.name, "experiment", self.experiment.name, "--events"]);
        command.args(&self.arguments);
        let mut report: Option<Report> = None;
        let mut last_lines = VecDeque::new();
        let ended = group::run(
            &mut command,
            stop,
            |line| match serde_json::from_str(&line) {
                Ok(Event::Report(whole)) => report = Some(*whole),
                Ok(event) => self.tell(Told::Event(event)),
                Err(error) => tracing::warn!(%error, line, "not an event"),
            },
            |line| {
                eprintln!("{line}");
                last_lines.truncate(LINES - 1);
                last_lines.push_front(line);
            },
        );
        let Some(status) = ended.await? else { return Ok(None) };
        let Some(report) = report else {
            let words = last_lines.into_iter().rev().collect::<Vec<_>>().join("\n");
            bail!("it ended without a report ({status}):\n{words}");
        };
        let html = self.predicted_html(&report) + &result::of_this_run(&self.answer, &report, code);
        self.keep();
        Ok(Some(Told::Last { held: report.held(), html }))
    }

    fn predicted_html(&self, report: &Report) -> String {
        let ours = Measured::read(&Measured::path(&self.answer)).unwrap_or_default();
        self.predicted.html(ours.of(&report.experiment).map(|one| &one.report), report)
    }

    /// Counts the run and the prediction in the reader's progress.
    fn keep(&self) {
        let (answer, name) = (self.answer.name, self.experiment.name);
        let kept = self.reader.change(|progress| {
            progress.ran.insert(format!("{answer}/{name}"));
            progress.predicted.extend(self.predicted.kept(answer, name, interview::now()));
            Ok(())
        });
        if let Err(error) = kept {
            eprintln!("warning: this run is not counted: {error:#}");
        }
    }
}
