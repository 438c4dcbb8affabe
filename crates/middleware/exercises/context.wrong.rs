// caught by: context
/// Makes it known to everything that the request calls.
pub async fn known(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let context = Context {
        request_id: request_id::id(extensions).to_owned(),
        user: extensions.get().cloned(),
    };
    CONTEXT.scope(context, next.run(request)).await
}

/// Starts a task that goes on for the same request.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    // The mistake: the span comes along, and the context does not.
    tokio::spawn(work.in_current_span())
}
