// caught by: ttl::
/// How long to keep what was loaded.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// A user.
    pub user: Ttl,
    /// An absence: nobody has the id.
    pub absence: Ttl,
}

impl Lives {
    /// A life for a user or for an absence, if it is to be kept at all.
    pub fn draw(&self, is_user: bool) -> Option<Duration> {
        // The mistake: zero for "not at all" is drawn like any other life, and becomes a millisecond.
        let ttl = if is_user { self.user } else { self.absence };
        Some(ttl.draw())
    }
}
