//! What does a monitor want to know of each replica? Text that Prometheus reads.

use crate::{jobs::Jobs, lifecycle::Phase, memory};

/// The page of `GET /metrics`.
pub fn page(jobs: &Jobs, phase: Phase, held: u32) -> String {
    let (done, in_flight) = jobs.counts();
    let ready = u8::from(phase == Phase::Ready);
    let used = memory::used();
    [
        ("jobs_done_total", "counter", "Jobs that were answered", done.to_string()),
        ("jobs_in_flight", "gauge", "Jobs that are not done yet", in_flight.to_string()),
        ("ready", "gauge", "Whether this process takes work", ready.to_string()),
        ("memory_held_mebibytes", "gauge", "Memory that work has taken", held.to_string()),
        ("process_resident_memory_bytes", "gauge", "Resident memory", used.to_string()),
    ]
    .map(|(name, kind, help, value)| {
        format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n{name} {value}\n")
    })
    .concat()
}
