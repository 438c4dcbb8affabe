// caught by: timeout
fn call(&mut self, request: Request) -> Self::Future {
    let next = timeout(self.limit, self.inner.call(request));
    // The mistake: 408 says that the client was too slow, and asks it to send the same again at once.
    Box::pin(async {
        next.await.unwrap_or_else(|_| Ok(StatusCode::REQUEST_TIMEOUT.into_response()))
    })
}
