// caught by: call::
    /// What came with a request. The caller's time counts unless ours is shorter: a long one buys nothing.
    pub fn receive(headers: &HeaderMap, longest: Duration, spans: &Arc<Spans>) -> Result<Self> {
        // The mistake: what cannot be read is taken for no time-out.
        let told = only(headers, TIMEOUT).and_then(|it| it.parse().ok());
        let left = told.map_or(longest, Duration::from_millis).min(longest);
        if left.is_zero() {
            return Err(Error::TOO_LATE);
        }
        let trace = only(headers, TRACEPARENT).and_then(Trace::parse);
        let new = || Trace { id: random::<u128>() | 1, span: 0, sampled: true };
        let trace = trace.unwrap_or_else(new);
        Ok(Self { deadline: Instant::now() + left, trace, spans: Arc::clone(spans) })
    }

    /// The time that is left.
    pub fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Error::TOO_LATE) } else { Ok(left) }
    }
