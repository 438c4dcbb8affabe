//! What did a request pass, and when? Each layer has a probe around it, and the last 1,000 requests can be drawn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{collections::VecDeque, fmt::Write, time::Instant};

use axum::extract::Request;
use serde::Serialize;
use tower::{ServiceExt, service_fn};

use crate::layer::{Inner, Name};
use crate::request_id::{HEADER, given};

/// A request enters a layer, or the layer gives an answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Event {
    /// Which layer.
    pub layer: Name,
    /// `in` or `out`.
    pub event: &'static str,
    /// Microseconds since the request came.
    pub at: u64,
}

/// The way of one request, while it is made.
#[derive(Clone, Debug)]
struct Trail(Instant, Arc<Mutex<Vec<Event>>>);

impl Trail {
    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, layer: Name, event: &'static str) {
        let at = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.lock().push(Event { layer, event, at });
    }
}

/// The requests that were answered last, with their ids; the last one first.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<(String, Trail)>>>);

impl Recent {
    /// The way of the last request with this id.
    pub fn find(&self, id: &str) -> Option<Vec<Event>> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().find(|(of, _)| of == id).map(|(_, trail)| trail.lock().clone())
    }

    fn keep(&self, id: String, trail: Trail) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((id, trail));
        recent.truncate(1_000);
    }
}

// ANCHOR: probe
/// Notes when a request enters and leaves what is inside. The layer's wait until it is ready is part of that.
pub fn probe(layer: Name, inner: Inner) -> Inner {
    Inner::new(service_fn(move |request: Request| {
        let (inner, trail) = (inner.clone(), request.extensions().get::<Trail>().cloned());
        async move {
            let note = |event| trail.as_ref().map(|trail| trail.note(layer, event));
            note("in");
            let response = inner.oneshot(request).await;
            note("out");
            response
        }
    }))
}
// ANCHOR_END: probe

/// Around everything: begins a trail, and keeps it under the id that the answer names, or that the client gave if no layer
/// named one.
pub fn record(recent: Recent, inner: Inner) -> Inner {
    Inner::new(service_fn(move |mut request: Request| {
        let (inner, recent) = (inner.clone(), recent.clone());
        async move {
            let (trail, asked) = (Trail(Instant::now(), Arc::default()), given(request.headers()));
            request.extensions_mut().insert(trail.clone());
            let response = inner.oneshot(request).await?;
            let id = response.headers().get(HEADER).or(asked.as_ref());
            if let Some(id) = id.and_then(|id| id.to_str().ok()) {
                recent.keep(id.to_owned(), trail);
            }
            Ok(response)
        }
    }))
}

/// Draws a bar for each layer that was entered. One that was never left was cut off.
pub fn picture(events: &[Event]) -> String {
    let end = events.iter().map(|it| it.at).max().unwrap_or(0).max(1);
    let scale = |at: u64| 600.0 * at as f64 / end as f64;
    let mut bars = String::new();
    let entered = events.iter().filter(|it| it.event == "in");
    for (row, Event { layer, at, .. }) in entered.enumerate() {
        let left = events.iter().find(|it| it.event == "out" && it.layer == *layer);
        let (to, colour) = left.map_or((end, "#b5524a"), |left| (left.at, "#4a7fb5"));
        let (y, x, width) = (26 * row, scale(*at), scale(to - at).max(1.0));
        let _ = writeln!(
            bars,
            r#"<rect x="{x:.1}" y="{y}" width="{width:.1}" height="20" fill="{colour}"/>
            <text x="610" y="{y}" dy="15">{layer} {at}–{to}</text>"#
        );
    }
    let size =
        r#"viewBox="0 0 860 400" font-family="sans-serif" font-size="13" fill="currentColor""#;
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" {size}>\n{bars}</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_a_thousand_and_one_is_forgotten() {
        let recent = Recent::default();
        let trail = Trail(Instant::now(), Arc::default());
        trail.note(Name::Auth, "in");
        for n in 0..=1_000 {
            recent.keep(n.to_string(), trail.clone());
        }
        assert!(recent.find("0").is_none());
        assert_eq!(recent.find("1").unwrap().len(), 1);
        assert_eq!(recent.find("1000").unwrap().len(), 1);
    }

    #[test]
    fn a_layer_that_was_never_left_is_drawn_as_cut_off() {
        let event = |layer, event, at| Event { layer, event, at };
        let (timeout, auth) = (Name::Timeout, Name::Auth);
        let events = [event(timeout, "in", 0), event(auth, "in", 1), event(timeout, "out", 9)];
        let svg = picture(&events);
        assert_eq!((svg.matches("<rect").count(), svg.matches("#b5524a").count()), (2, 1), "{svg}");
        assert!(picture(&[]).starts_with("<svg"));
    }
}
