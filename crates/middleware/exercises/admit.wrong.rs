// caught by: auth::
/// Notes the user in the request. The answer to a request that must not go on is returned.
pub fn refuse(&self, request: &mut Request) -> Option<Response> {
    // The mistake: what is guarded is compared as a whole, so all that is below it is open.
    if request.uri().path() != "/notes" {
        return None;
    }
    let key = bearer(request.headers()).map(digest);
    if let Some(user) = key.and_then(|key| self.0.get(&key)) {
        Span::current().record("user", &user.0);
        request.extensions_mut().insert(user.clone());
        return None;
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "send `authorization: Bearer KEY`");
    let scheme = HeaderValue::from_static("Bearer");
    Some(problem.header(WWW_AUTHENTICATE, scheme).into_response())
}
