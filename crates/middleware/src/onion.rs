//! What did a request pass, and when? Each layer has a probe around it, and the last 1,000 requests can be drawn.

use std::{
    collections::VecDeque,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::extract::Request;
use serde::Serialize;
use tower::{ServiceExt, service_fn};

use crate::layer::Inner;
use crate::request_id::{HEADER, given};

/// As many are remembered.
const REMEMBERED: usize = 1_000;

/// A layer that a request has entered.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Passage {
    /// Its name.
    pub layer: &'static str,
    /// When the layer got the request, in microseconds since the outermost one did.
    pub entered: u64,
    /// When it gave an answer. Nothing if it was dropped before that.
    pub left: Option<u64>,
    /// Which of the layers gave an answer first, second and so on.
    pub place: Option<usize>,
}

/// The way of one request.
#[derive(Clone, Debug)]
pub struct Trail {
    begun: Instant,
    passages: Arc<Mutex<Vec<Passage>>>,
}

impl Trail {
    fn lock(&self) -> MutexGuard<'_, Vec<Passage>> {
        self.passages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn enter(&self, layer: &'static str) -> usize {
        let entered = self.now();
        let mut passages = self.lock();
        passages.push(Passage { layer, entered, left: None, place: None });
        passages.len() - 1
    }

    fn leave(&self, at: usize) {
        let left = self.now();
        let mut passages = self.lock();
        let place = passages.iter().filter(|it| it.left.is_some()).count();
        passages[at].left = Some(left);
        passages[at].place = Some(place);
    }

    /// The layers that it entered, in this order.
    pub fn passages(&self) -> Vec<Passage> {
        self.lock().clone()
    }
}

/// The requests that were answered last, with their ids.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<(String, Trail)>>>);

impl Recent {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, Trail)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way of the last request with this id.
    pub fn find(&self, id: &str) -> Option<Trail> {
        let recent = self.lock();
        recent.iter().rev().find(|(of, _)| of == id).map(|(_, trail)| trail.clone())
    }
}

// ANCHOR: probe
/// Notes when a request enters and leaves what is inside. The layer's wait until it is ready is part of that.
pub fn probe(layer: &'static str, inner: Inner) -> Inner {
    Inner::new(service_fn(move |request: Request| {
        let (inner, trail) = (inner.clone(), request.extensions().get::<Trail>().cloned());
        async move {
            let passage = trail.map(|trail| (trail.enter(layer), trail));
            let response = inner.oneshot(request).await;
            if let Some((at, trail)) = passage {
                trail.leave(at);
            }
            response
        }
    }))
}
// ANCHOR_END: probe

/// Around everything: begins a trail, and keeps it under the id that the answer names, or
/// that the client gave if no layer named one.
pub fn record(recent: Recent, inner: Inner) -> Inner {
    Inner::new(service_fn(move |mut request: Request| {
        let (inner, recent) = (inner.clone(), recent.clone());
        async move {
            let trail = Trail { begun: Instant::now(), passages: Arc::default() };
            request.extensions_mut().insert(trail.clone());
            let asked = given(request.headers());
            let response = inner.oneshot(request).await?;
            let id = response.headers().get(HEADER).or(asked.as_ref());
            if let Some(id) = id.and_then(|id| id.to_str().ok()) {
                let mut recent = recent.lock();
                if recent.len() == REMEMBERED {
                    recent.pop_front();
                }
                recent.push_back((id.to_owned(), trail));
            }
            Ok(response)
        }
    }))
}

/// Draws bars below each other, each with its name, its begin and its end. One without an end was cut off.
pub fn picture(bars: &[(&str, u64, Option<u64>)], unit: &str) -> String {
    let end = bars.iter().map(|(_, from, to)| to.unwrap_or(*from)).max().unwrap_or(0).max(1);
    let scale = |at: u64| 10.0 + 600.0 * at as f64 / end as f64;
    let height = 26 * bars.len() + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n"
    );
    for (row, (name, from, to)) in bars.iter().enumerate() {
        let (y, x) = (26 * row + 8, scale(*from));
        let (colour, width) = match to {
            Some(to) => ("#4a7fb5", (scale(*to) - x).max(1.0)),
            None => ("#b5524a", scale(end) - x),
        };
        let words = match to {
            Some(to) => format!("{name} {from}–{to} {unit}"),
            None => format!("{name} {from} {unit}, cut off"),
        };
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"620\" y=\"{}\" fill=\"currentColor\">{words}</text>",
            y + 14
        );
    }
    svg + "</svg>\n"
}
