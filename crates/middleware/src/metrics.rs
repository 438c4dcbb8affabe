//! How many requests, how they were answered, and how long they took: counted around everything that may answer.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// What was counted since the start.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// By status. Paths would be better to know, and each stranger can think of new ones.
    answers: BTreeMap<u16, u64>,
    seconds: f64,
    begun: u64,
    ended: u64,
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> String {
        let counts = self.counts();
        let mut text = "# TYPE http_requests_total counter\n".to_owned();
        for (status, count) in &counts.answers {
            let _ = writeln!(text, "http_requests_total{{status=\"{status}\"}} {count}");
        }
        let under_way = counts.begun - counts.ended;
        let _ = writeln!(text, "# TYPE http_requests_in_flight gauge");
        let _ = writeln!(text, "http_requests_in_flight {under_way}");
        let _ = writeln!(text, "# TYPE http_request_duration_seconds summary");
        let _ = writeln!(text, "http_request_duration_seconds_sum {}", counts.seconds);
        let count: u64 = counts.answers.values().sum();
        let _ = writeln!(text, "http_request_duration_seconds_count {count}");
        text
    }
}

/// A request that is under way, until this is dropped, also by a panic or because its client has gone.
struct UnderWay(Metrics);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.counts().ended += 1;
    }
}

/// Counts a request, and how it was answered.
pub async fn counted(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    metrics.counts().begun += 1;
    let (begun, _under_way) = (Instant::now(), UnderWay(metrics.clone()));
    let response = next.run(request).await;
    let mut counts = metrics.counts();
    *counts.answers.entry(response.status().as_u16()).or_default() += 1;
    counts.seconds += begun.elapsed().as_secs_f64();
    drop(counts);
    response
}
