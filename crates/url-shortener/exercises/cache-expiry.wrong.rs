// caught by: expiry
/// Until the link expires, and no longer than the longest.
struct Lifetime {
    longest: Duration,
}

impl Expiry<Code, Arc<HotLink>> for Lifetime {
    fn expire_after_create(&self, _: &Code, _: &Arc<HotLink>, _: Instant) -> Option<Duration> {
        // The mistake: one time to live for all.
        Some(self.longest)
    }
}
