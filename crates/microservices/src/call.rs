//! What travels with a call from service to service? The time that is left for it, and the trace that it belongs to.
//!
//! The time is what is left and not a moment, so that clocks need not agree. (gRPC's `grpc-timeout` does the same.) The
//! trace is W3C's `traceparent`. Each service keeps the spans that it made; whoever asks for a trace collects them.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::HeaderMap;
use edge::{header::only, trace::TRACEPARENT, trace::Trace};
use rand::random;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};

use crate::error::{Error, Result};

/// The milliseconds that are left.
pub const TIMEOUT: &str = "x-timeout-ms";
/// Spans that a process keeps; then it forgets the oldest.
const KEPT: usize = 20_000;

/// What was done as a part of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Sixteen hexadecimal digits.
    pub id: String,
    /// The span that it is a part of, if that is known.
    pub parent: String,
    /// The process that did it. Each process has a few names, and allocates none of them for a span of its own.
    pub service: Cow<'static, str>,
    /// What.
    pub name: Cow<'static, str>,
    /// By the clock of that process, which may differ from others'.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// How long, by a clock that only goes forward.
    pub micros: u64,
    /// Whether it failed, or was given up.
    pub failed: bool,
}

/// The spans that this process has made, the newest of them.
#[derive(Debug)]
pub struct Spans {
    /// Whose.
    pub service: &'static str,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Each with its trace.
    spans: VecDeque<(u128, Span)>,
    forgotten: u64,
}

impl Spans {
    /// For the process of this name.
    pub fn new(service: &'static str) -> Arc<Self> {
        Arc::new(Self { service, kept: Mutex::default() })
    }

    /// Those of one trace; of one that somebody made very long, the first.
    pub fn of(&self, trace: u128) -> Vec<Span> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.spans.iter().filter(|it| it.0 == trace).map(|it| it.1.clone()).take(500).collect()
    }

    /// Some of those that came after this many, each with its trace; and how many there were with them.
    pub fn after(&self, seen: u64, most: usize) -> (Vec<(u128, Span)>, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.max(kept.forgotten);
        let skip = usize::try_from(seen - kept.forgotten).unwrap_or(usize::MAX);
        let some: Vec<_> = kept.spans.iter().skip(skip).take(most).cloned().collect();
        let now = seen + some.len() as u64;
        (some, now)
    }

    fn keep(&self, trace: u128, span: Span) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.spans.len() == KEPT {
            kept.spans.pop_front();
            kept.forgotten += 1;
        }
        kept.spans.push_back((trace, span));
    }
}

/// What travels with a call.
#[derive(Clone, Debug)]
pub struct Call {
    deadline: Instant,
    /// The trace, and the span that is under way.
    pub trace: Trace,
    spans: Arc<Spans>,
}

impl Call {
    // ANCHOR: receive
    /// What came with a request. The caller's time counts unless ours is shorter: a long one buys nothing.
    pub fn receive(headers: &HeaderMap, longest: Duration, spans: &Arc<Spans>) -> Result<Self> {
        let mut left = longest;
        if headers.contains_key(TIMEOUT) {
            let told = only(headers, TIMEOUT).filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
            let told = told.and_then(|it| it.parse().ok()).ok_or(Error::BAD_TIMEOUT)?;
            left = left.min(Duration::from_millis(told));
        }
        if left.is_zero() {
            return Err(Error::TOO_LATE);
        }
        let new = || Trace { id: random::<u128>() | 1, span: 0, sampled: true };
        let trace = only(headers, TRACEPARENT).and_then(Trace::parse).unwrap_or_else(new);
        Ok(Self { deadline: Instant::now() + left, trace, spans: Arc::clone(spans) })
    }

    /// The time that is left.
    pub fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Error::TOO_LATE) } else { Ok(left) }
    }
    // ANCHOR_END: receive

    // ANCHOR: span
    /// Does this work within a new span of this name.
    pub async fn span<T, E, F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        work: impl FnOnce(Self) -> F,
    ) -> std::result::Result<T, E>
    where
        F: Future<Output = std::result::Result<T, E>>,
    {
        if !self.trace.sampled {
            return work(self.clone()).await;
        }
        let (id, at, begun) = (random::<u64>() | 1, OffsetDateTime::now_utc(), Instant::now());
        let done = work(Self { trace: Trace { span: id, ..self.trace }, ..self.clone() }).await;
        let span = Span {
            id: format!("{id:016x}"),
            parent: format!("{:016x}", self.trace.span),
            service: self.spans.service.into(),
            name: name.into(),
            at,
            micros: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            failed: done.is_err(),
        };
        self.spans.keep(self.trace.id, span);
        done
    }
    // ANCHOR_END: span
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(2);

    fn received(values: &[&str]) -> Result<Call> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TIMEOUT, value.parse().unwrap());
        }
        Call::receive(&headers, LONGEST, &Spans::new("test"))
    }

    #[test]
    fn the_callers_time_counts_unless_it_is_longer_than_ours() {
        let left = received(&["500"]).unwrap().left().unwrap();
        assert!((Duration::from_millis(100)..=Duration::from_millis(500)).contains(&left));
        for long in [&[][..], &["3600000"], &["18446744073709551615"]] {
            let left = received(long).unwrap().left().unwrap();
            assert!(left > Duration::from_secs(1) && left <= LONGEST, "{long:?}: {left:?}");
        }
    }

    #[test]
    fn no_time_is_too_late_and_nonsense_is_refused() {
        assert!(matches!(received(&["0"]), Err(Error::NotNow(_))));
        for bad in [&["soon"][..], &["-1"], &["+1"], &["1.5"], &[""], &["5", "5"]] {
            assert!(matches!(received(bad), Err(Error::Refused(400, _))), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn spans_are_told_once_and_in_their_order_also_when_some_were_forgotten() {
        let call = received(&[]).unwrap();
        let mut seen = 0;
        for count in [3, KEPT + 5] {
            for n in 0..count {
                call.span(n.to_string(), |_| async { Ok::<_, ()>(()) }).await.unwrap();
            }
            let mut told = Vec::new();
            loop {
                let (some, now) = call.spans.after(seen, 512);
                assert!(some.len() <= 512);
                seen = now;
                if some.is_empty() {
                    break;
                }
                told.extend(some.into_iter().map(|(_, span)| span.name));
            }
            let expected = (count.saturating_sub(KEPT)..count).map(|n| n.to_string());
            assert_eq!(told, expected.collect::<Vec<_>>());
        }
        assert_eq!(seen, 3 + KEPT as u64 + 5);
    }

    #[tokio::test]
    async fn what_was_done_for_a_trace_is_kept_with_how_it_went() {
        let call = received(&[]).unwrap();
        let inner =
            |call: Call| async move { call.span("inner", |_| async { Err::<(), _>(()) }).await };
        call.span("outer", inner).await.unwrap_err();
        call.span("other", |_| async { Ok::<_, ()>(()) }).await.unwrap();
        let spans = call.spans.of(call.trace.id);
        let seen: Vec<_> = spans.iter().map(|it| (&*it.name, it.failed)).collect();
        assert_eq!(seen, [("inner", true), ("outer", true), ("other", false)]);
        assert_eq!(spans[0].parent, spans[1].id);
    }
}
