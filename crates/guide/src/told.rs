//! What does a page learn about a run? It gets server-sent events.

use axum::response::sse::Event as Sse;
use lab::{recorder::Event, report::escaped};
use serde_json::{Value, json};

use crate::render;

/// One message to a page.
#[derive(Debug)]
pub enum Told {
    /// The program is being built.
    Building(String),
    /// The experiment has recorded something.
    Event(Event),
    /// The last message: the result.
    Last {
        /// Whether every check held.
        held: bool,
        /// The result as HTML.
        html: String,
    },
}

impl Told {
    /// The last message of a run without a report: a verdict, and the error or the compiler's messages.
    pub fn failed(verdict: &str, words: &str) -> Self {
        let words = escaped(words.trim());
        let html = format!(
            "<p class=\"verdict failed\"><strong>{verdict}</strong></p><pre class=\"words\">{words}</pre>",
        );
        Self::Last { held: false, html }
    }

    /// As a server-sent event.
    pub fn sse(&self) -> Sse {
        match self {
            Self::Building(label) => sse("building", &json!({ "label": label })),
            Self::Event(event) => match render::piece(event) {
                Some(piece) => sse("piece", &json!(piece)),
                None => sse("progress", &json!(event)),
            },
            Self::Last { held, html } => sse("report", &json!({ "held": held, "html": html })),
        }
    }
}

/// Leaves out outdated messages of a batch: progress, and each chart, are kept only in their last state.
pub fn latest(batch: Vec<Told>) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    for later in batch {
        told.retain(|earlier| !replaces(&later, earlier));
        told.push(later);
    }
    told
}

fn replaces(later: &Told, earlier: &Told) -> bool {
    match (later, earlier) {
        (Told::Building(_), Told::Building(_))
        | (Told::Event(Event::Progress { .. }), Told::Event(Event::Progress { .. })) => true,
        (Told::Event(Event::Series(later)), Told::Event(Event::Series(earlier))) => {
            later.title == earlier.title
        }
        _ => false,
    }
}

fn sse(name: &str, data: &Value) -> Sse {
    // This JSON contains no line breaks, which an event could not contain.
    Sse::default().event(name).data(data.to_string())
}
