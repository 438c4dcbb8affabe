// caught by: expiry
/// Until the link expires, and no longer than the longest.
struct Lifetime {
    longest: Duration,
}

impl Expiry<Code, Leads> for Lifetime {
    fn expire_after_create(&self, _: &Code, leads: &Leads, _: Instant) -> Option<Duration> {
        if leads.is_err() {
            return Some(NOWHERE_FOR);
        }
        // The mistake: one time to live for all links.
        Some(self.longest)
    }
}
