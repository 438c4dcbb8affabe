// caught by: bodies::
/// The same, while it passes.
pub async fn signed_stream(State(secret): State<Secret>, request: Request, next: Next) -> Response {
    let Some(claimed) = claimed(request.headers(), request.body()) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    // The mistake: each piece is compared with the signature of the whole.
    let chunks = body.into_data_stream().map(move |chunk| {
        let chunk = chunk?;
        let mac = secret.0.clone().chain_update(&chunk);
        match mac.verify_slice(&claimed) {
            Ok(()) => Ok(chunk),
            Err(_) => Err(axum::Error::new("the signature is not right")),
        }
    });
    next.run(Request::from_parts(parts, Body::from_stream(chunks))).await
}
