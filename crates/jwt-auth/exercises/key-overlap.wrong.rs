// caught by: key-rotation
    /// How long a key is published before it signs.
    pub fn publish_ahead(&self) -> Duration {
        self.key_set_max_age * 3
    }

    /// How long a key stays published after its successor has begun to sign.
    pub fn publish_after(&self) -> Duration {
        // The mistake: who does not sign any more need not be known any more.
        Duration::ZERO
    }
