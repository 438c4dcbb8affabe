// caught by: lifecycle::
    /// Does what has to be done before the first request, and then says that we are ready.
    pub async fn start(&self, warm_up: impl Future<Output = ()>) {
        warm_up.await;
        // The mistake: a process that was told to end while it started becomes ready again.
        self.phase.send_replace(Phase::Ready);
    }

    /// Completes when we may stop to listen. The order matters: first we say that we are not ready, then balancers get the
    /// time to hear of it, and only then new connections are refused. Requests in flight are answered after that.
    pub async fn stop(&self, signal: impl Future<Output = ()>) {
        signal.await;
        self.phase.send_replace(Phase::Draining);
        sleep(self.linger).await;
    }
