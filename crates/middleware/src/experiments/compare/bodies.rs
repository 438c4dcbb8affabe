//! What if a layer wants all of a body? It has to wait for it and keep it, or to look at it while it passes.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use edge::{Problem, header::only};
use futures_util::{StreamExt, stream::unfold};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

use crate::layer::{Inner, Name, around};

/// The header with the signature of a body: Base64 of its HMAC with SHA-256.
const SIGNATURE: &str = "x-signature";

/// The secret that signers share with us.
pub const SECRET: &str = "a-secret-for-signatures";

/// Puts one of the layers that read bodies around a service.
pub fn layer(name: Name, inner: Inner) -> Inner {
    let secret = Secret::new(SECRET);
    match name {
        Name::Digest => around(&from_fn(digested), inner),
        Name::Signature => around(&from_fn_with_state(secret, signed), inner),
        Name::SignatureStream => around(&from_fn_with_state(secret, signed_stream), inner),
        _ => inner,
    }
}

/// What the sender and we know.
#[derive(Clone, Debug)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Any text will do.
    pub fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// The signature of a body.
    pub fn sign(&self, body: &[u8]) -> String {
        STANDARD.encode(self.0.clone().chain_update(body).finalize().into_bytes())
    }
}

/// The signature that came with the request; nothing if it has no body, which nobody has to sign.
fn claimed(headers: &HeaderMap, body: &Body) -> Option<Vec<u8>> {
    let claimed = || STANDARD.decode(only(headers, SIGNATURE)?).ok();
    let is_empty = axum::body::HttpBody::size_hint(body).exact() == Some(0);
    if is_empty { None } else { Some(claimed().unwrap_or_default()) }
}

fn not_signed() -> Response {
    Problem::new(StatusCode::UNAUTHORIZED, "the signature is not right").into_response()
}

// ANCHOR: whole
/// 401 for a body with another signature. The handler never sees one byte of it, so all of it is kept until then.
pub async fn signed(State(secret): State<Secret>, request: Request, next: Next) -> Response {
    let Some(claimed) = claimed(request.headers(), request.body()) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    // Whatever limits the body has to stand outside of this layer.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        let words = "the body is too long, or ended too soon";
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, words).into_response();
    };
    if secret.0.chain_update(&body).verify_slice(&claimed).is_err() {
        return not_signed();
    }
    next.run(Request::from_parts(parts, body.into())).await
}
// ANCHOR_END: whole

// ANCHOR: stream
/// The same, while it passes. The handler has the body before anybody knows whether it is the right one. Where it is not,
/// the stream ends with an error, so a handler has to read to the end, and to take back what it did.
pub async fn signed_stream(State(secret): State<Secret>, request: Request, next: Next) -> Response {
    let Some(claimed) = claimed(request.headers(), request.body()) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let begin = (body.into_data_stream(), Some((secret.0, claimed)));
    let chunks = unfold(begin, |(mut chunks, state)| async {
        let (mac, claimed) = state?;
        match chunks.next().await {
            Some(Ok(chunk)) => {
                let mac = mac.chain_update(&chunk);
                Some((Ok(chunk), (chunks, Some((mac, claimed)))))
            }
            Some(Err(error)) => Some((Err(error), (chunks, None))),
            None if mac.verify_slice(&claimed).is_ok() => None,
            None => Some((Err(axum::Error::new("the signature is not right")), (chunks, None))),
        }
    });
    next.run(Request::from_parts(parts, Body::from_stream(chunks))).await
}
// ANCHOR_END: stream

/// Says what the bytes of the answer hash to, so that its reader can see that they are whole (RFC 9530). It has to know all
/// of them first, so it does not suit a long stream.
pub async fn digested(request: Request, next: Next) -> Response {
    let (mut parts, body) = next.run(request).await.into_parts();
    let Ok(bytes) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Problem::internal().into_response();
    };
    if let Ok(value) = HeaderValue::try_from(digest(&bytes)) {
        parts.headers.insert("content-digest", value);
    }
    Response::from_parts(parts, bytes.into())
}

/// As the header says it.
pub fn digest(bytes: &Bytes) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;

    /// The status, and what the handler has read, for a body in two pieces under each of the two layers.
    async fn ask(pieces: [&'static str; 2], signature: &str) -> [(u16, String); 2] {
        let secret = Secret::new("s3cret");
        let handler = async |body: Body| match to_bytes(body, 1_000).await {
            Ok(body) => (StatusCode::OK, body),
            Err(_) => (StatusCode::BAD_REQUEST, Bytes::new()),
        };
        let calls = || Router::new().route("/", post(handler));
        let both = [
            calls().layer(from_fn_with_state(secret.clone(), signed)),
            calls().layer(from_fn_with_state(secret, signed_stream)),
        ];
        let mut seen = [const { (0, String::new()) }; 2];
        for (router, seen) in both.into_iter().zip(&mut seen) {
            let pieces = futures_util::stream::iter(pieces.map(Ok::<_, std::io::Error>));
            let request = Request::post("/").header(SIGNATURE, signature);
            let request = request.body(Body::from_stream(pieces)).unwrap();
            let response = router.oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), 1_000).await.unwrap();
            *seen = (status, String::from_utf8_lossy(&body).into_owned());
        }
        seen
    }

    #[tokio::test]
    async fn a_signed_body_gets_through_whole() {
        let signature = Secret::new("s3cret").sign(b"two pieces");
        let fine = (200, "two pieces".to_owned());
        assert_eq!(ask(["two ", "pieces"], &signature).await, [fine.clone(), fine]);
    }

    #[tokio::test]
    async fn a_body_that_was_changed_is_refused_before_the_handler_or_ends_with_an_error() {
        for signature in [
            Secret::new("s3cret").sign(b"two pieces"),
            Secret::new("other").sign(b"two pieceS"),
            String::new(),
        ] {
            let [whole, stream] = ask(["two ", "pieceS"], &signature).await;
            assert_eq!((whole.0, stream.0), (401, 400), "{signature}");
        }
    }

    #[tokio::test]
    async fn a_digest_is_that_of_its_bytes() {
        let empty = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        assert_eq!(digest(&Bytes::new()), empty);
    }
}
