// caught by: timeout
fn call(&mut self, request: Request) -> Self::Future {
    // The mistake: a task of its own goes on when nobody waits for it any more.
    let task = tokio::spawn(self.inner.clone().oneshot(request));
    let next = timeout(self.limit, async { task.await.unwrap_or_else(|_| Ok(too_slow())) });
    Box::pin(async { next.await.unwrap_or_else(|_| Ok(too_slow())) })
}
