// caught by: expiry
/// An entry stays no longer than until its link expires.
struct UntilTheEnd;

impl Expiry<Code, Leads> for UntilTheEnd {
    fn expire_after_create(&self, _: &Code, leads: &Leads, _: Instant) -> Option<Duration> {
        // The mistake: one time to live for all links.
        leads.is_err().then_some(NOWHERE_FOR)
    }
}
