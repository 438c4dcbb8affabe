// caught by: sliding_window_keeps
impl Counter for SlidingWindow {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        match now.saturating_sub(self.opened) / quota.window() {
            0 => {}
            1 => {
                self.previous = self.current;
                self.current = 0;
                self.opened += quota.window();
            }
            _ => *self = Self { opened: now, ..Self::default() },
        }
    }

    fn remaining(&self, quota: &Quota, now: Micros) -> u64 {
        // The mistake: the part of the older window that has gone is counted, and not the part that is left.
        let faded = self.faded(quota, quota.window() - self.left(quota, now));
        quota.limit().saturating_sub(self.current + faded)
    }

    fn take(&mut self, quota: &Quota, now: Micros, cost: u64) {
        if self.current + self.previous == 0 {
            self.opened = now;
        }
        self.current = (self.current + cost).min(quota.limit());
    }

    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros {
        let (left, room) = (self.left(quota, now), quota.limit() - cost);
        if self.current <= room {
            // In this window: until enough of the older counter has faded.
            Self::fading(self.previous, room - self.current, left, quota)
        } else {
            // In the next one, in which it is this window's counter that fades.
            left + Self::fading(self.current, room, quota.window(), quota)
        }
    }

    fn whole(&self, quota: &Quota, now: Micros) -> Micros {
        match (self.current, self.previous) {
            (0, 0) => 0,
            (0, _) => self.left(quota, now),
            _ => self.left(quota, now) + quota.window(),
        }
    }
}
