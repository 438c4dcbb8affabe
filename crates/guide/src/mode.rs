//! Can a page run experiments?

/// Whether a page can run experiments, or only show what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Served by the guide.
    Live,
    /// Written to files, for any web server.
    Static,
}
