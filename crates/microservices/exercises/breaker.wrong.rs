// caught by: peer::
/// Whether a service is asked at all.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<Broken>);

#[derive(Debug, Default)]
struct Broken {
    /// One after another.
    failures: u32,
    /// Nobody asks before. Then one call tries, and the others wait for what it finds.
    until: Option<Instant>,
}

impl Breaker {
    /// Whether a call may be made at this moment. The one that tries moves the moment on: if it is dropped before it tells
    /// how it went, the next one tries after another pause.
    pub fn lets_through(&self, now: Instant) -> bool {
        let broken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The mistake: when the pause is over, everybody tries at once, and the service goes down again.
        broken.until.is_none_or(|until| now >= until)
    }

    /// How a call went.
    pub fn learn(&self, went_well: bool, now: Instant) {
        let mut broken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if went_well {
            *broken = Broken::default();
            return;
        }
        broken.failures += 1;
        if broken.failures >= FAILURES {
            broken.until = Some(now + PAUSE);
        }
    }
}
