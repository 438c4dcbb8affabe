//! How does a page run an experiment? By a POST, whose answer is the run itself, told as it goes.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event as Sse, KeepAlive},
    },
};
use futures_util::{Stream, StreamExt, stream};
use lab::{Answer, Experiment, recorder::Event};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{problem::problem, render};

/// Runs one experiment at a time: two would measure each other.
#[derive(Clone, Debug)]
pub struct Runs {
    answers: Arc<[Answer]>,
    turn: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Runs {
    /// None runs yet. All end when `stopping` is cancelled.
    pub fn new(answers: Vec<Answer>, stopping: CancellationToken) -> Self {
        Self { answers: answers.into(), turn: Arc::new(Semaphore::new(1)), stopping }
    }

    fn find(&self, answer: &str, experiment: &str) -> Option<(Answer, Experiment)> {
        let answer = self.answers.iter().find(|known| known.name == answer)?;
        Some((answer.clone(), answer.experiment(experiment)?.clone()))
    }
}

/// `POST /api/experiments/{answer}/{name}` with the parameters as a JSON object.
///
/// 200 and a stream of server-sent events: `progress`, `piece`, and in the end `report`. 404 if there is no such
/// experiment, 409 while another runs, 422 if a parameter is not understood. Closing the connection
/// stops the run, and what it started.
pub async fn run(
    State(runs): State<Runs>,
    Path((answer, name)): Path<(String, String)>,
    Json(params): Json<Map<String, Value>>,
) -> Response {
    let Some((answer, experiment)) = runs.find(&answer, &name) else {
        return problem(StatusCode::NOT_FOUND, "there is no such experiment");
    };
    let arguments: Vec<_> = params.iter().map(argument).collect();
    if let Err(error) = experiment.command().try_get_matches_from(&arguments) {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string().trim());
    }
    let Ok(turn) = runs.turn.clone().try_acquire_owned() else {
        return problem(StatusCode::CONFLICT, "another experiment is running; stop it or wait");
    };
    let stream =
        events(answer, experiment, arguments, turn).take_until(runs.stopping.cancelled_owned());
    axum::response::Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

fn argument((name, value): (&String, &Value)) -> String {
    match value {
        Value::String(text) => format!("--{name}={text}"),
        other => format!("--{name}={other}"),
    }
}

/// The run as a stream. It is the run's owner: when the client has gone, the stream is dropped, and the run with it.
fn events(
    answer: Answer,
    experiment: Experiment,
    arguments: Vec<String>,
    turn: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Sse, Infallible>> {
    // No bound is needed: what an experiment tells is what its report keeps in memory anyway.
    let (events, seen) = mpsc::unbounded_channel();
    let run = tokio::spawn(async move { experiment.run(&answer, &arguments, events).await });
    let run = Some((AbortOnDropHandle::new(run), turn));
    stream::unfold((seen, run), async |(mut seen, run)| {
        let mut batch = Vec::new();
        if seen.recv_many(&mut batch, 1_000).await > 0 {
            return Some((told(batch), (seen, run)));
        }
        // The run has let go of its end: it is over, and this is the last word.
        let (run, turn) = run?;
        let last = match run.await {
            Ok(Ok(report)) => {
                if let Err(error) = lab::results::store(&report) {
                    tracing::warn!(%error, "the result could not be kept");
                }
                let html = render::report(&report, time::OffsetDateTime::now_utc());
                json!({ "held": report.held(), "html": html })
            }
            Ok(Err(error)) => json!({ "held": false, "html": broke_off(&error) }),
            Err(error) => json!({ "held": false, "html": broke_off(&error) }),
        };
        // Free before the page knows that it has ended, so that it may run the next at once.
        drop(turn);
        Some((vec![sse("report", &last)], (seen, None)))
    })
    .flat_map(|events| stream::iter(events.into_iter().map(Ok)))
}

fn broke_off(error: &impl ToString) -> String {
    format!("<p class=\"verdict failed\">{}</p>", lab::report::escaped(&error.to_string()))
}

/// What is worth telling of a batch: of progress and of each chart only the last state.
fn told(batch: Vec<Event>) -> Vec<Sse> {
    let mut told: Vec<Event> = Vec::new();
    for event in batch {
        told.retain(|earlier| !replaces(&event, earlier));
        told.push(event);
    }
    told.iter()
        .map(|event| match render::piece(event) {
            Some(piece) => sse("piece", &json!(piece)),
            None => sse("progress", &json!(event)),
        })
        .collect()
}

fn replaces(later: &Event, earlier: &Event) -> bool {
    match (later, earlier) {
        (Event::Progress { .. }, Event::Progress { .. }) => true,
        (Event::Series(later), Event::Series(earlier)) => later.title == earlier.title,
        _ => false,
    }
}

fn sse(name: &str, data: &Value) -> Sse {
    // JSON has no line ends, which alone could not be sent.
    Sse::default().event(name).data(data.to_string())
}
