// caught by: api-redirect
/// A browser that asks for a page is told where it is. Anything else may carry a password or a token, which has crossed
/// the wire already. A redirect would hide that: the client would follow it and go on like this for years.
async fn elsewhere(
    State(plain): State<Arc<Plain>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    // The mistake: a POST is a request like any other, and 308 keeps its body.
    if plain.redirect_api || method != Method::CONNECT {
        plain.names.to_https(&uri, &headers)
    } else {
        Err(Error::InTheClear(plain.names.url()))
    }
}
