//! How many requests, how they were answered, and how long they took: counted around everything that may answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{collections::BTreeMap, fmt::Write, time::Instant};

use axum::{extract::Request, extract::State, middleware::Next, response::Response};

/// How many answers of each status there were since the start, and how long they took in all. Not by path: a stranger
/// could make the table grow with invented paths.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<u16, (u64, f64)>>>);

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, (u64, f64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (status, (count, seconds)) in &*self.lock() {
            let of = format!("{{status=\"{status}\"}}");
            let _ = writeln!(text, "http_requests_total{of} {count}");
            let _ = writeln!(text, "http_request_duration_seconds_sum{of} {seconds}");
        }
        text
    }
}

/// Counts a request by how it was answered. One that is dropped, since its client has gone, is not counted.
pub async fn counted(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let response = next.run(request).await;
    let mut counts = metrics.lock();
    let (count, seconds) = counts.entry(response.status().as_u16()).or_default();
    (*count, *seconds) = (*count + 1, *seconds + begun.elapsed().as_secs_f64());
    response
}
