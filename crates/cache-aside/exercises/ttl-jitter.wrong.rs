// caught by: ttl::
/// A time to live of which a random part is taken off.
#[derive(Clone, Copy, Debug)]
pub struct Ttl {
    /// The longest life. Somebody may have been promised this bound, so jitter only shortens.
    pub longest: Duration,
    /// How much of it a random part may take off: 0 none, 1 all.
    pub jitter: f64,
}

impl Ttl {
    /// A life for one value, a millisecond at least: Redis refuses 0.
    pub fn draw(self) -> Duration {
        // The mistake: plus or minus, so that half of the lives are longer than was promised.
        let part = 1.0 + self.jitter * (rand::random::<f64>() - 0.5);
        self.longest.mul_f64(part).max(Duration::from_millis(1))
    }
}
