// caught by: health
/// Whether this replica should get requests. `GET /healthz`, which asks nobody, says whether it should be restarted.
async fn ready(State(api): State<Arc<Api>>) -> Result<Json<Value>, Error> {
    // The mistake: it knows its own phase, and not whether it can do its work.
    match api.lifecycle.phase() {
        Phase::Starting => Err(Error::NotReady("it starts")),
        Phase::Draining => Err(Error::NotReady("it ends")),
        Phase::Ready => Ok(Json(json!({ "status": "ready" }))),
    }
}
