//! Which request does a log line belong to? Each request has an id, which the client may choose, and each answer names it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use axum::{extract::Request, middleware::Next, middleware::from_fn, response::Response};
use edge::header::only;
use futures_util::future::BoxFuture;
use tower::{Service, layer::layer_fn};
use tower_http::request_id::RequestId;
use uuid::Uuid;

use crate::layer::{Form, Inner, around};

/// In requests and answers.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The layer, written in one of our two ways.
pub fn layer(form: Form, inner: Inner) -> Inner {
    let by_hand = layer_fn(WithIdService);
    if form == Form::FromFn { around(&from_fn(with_id), inner) } else { around(&by_hand, inner) }
}

/// The id of a request; `-` if no layer gave it one.
pub fn id(extensions: &Extensions) -> &str {
    let id = extensions.get::<RequestId>();
    id.and_then(|id| id.header_value().to_str().ok()).unwrap_or("-")
}

// ANCHOR: given
/// The id that the client chose. It goes into log lines and into headers of other services, so it is short and plain, and
/// there is one: any other value is ignored.
pub fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let id = only(headers, HEADER.as_str())?;
    let good = (1..=64).contains(&id.len()) && id.bytes().all(plain);
    good.then(|| HeaderValue::from_str(id).ok()).flatten()
}
// ANCHOR_END: given

/// Gives the request its id, and returns it for the answer.
fn mark(request: &mut Request) -> HeaderValue {
    let new = || HeaderValue::try_from(Uuid::new_v4().to_string());
    let id = given(request.headers()).or_else(|| new().ok());
    // A UUID is always a value.
    let id = id.unwrap_or(HeaderValue::from_static("-"));
    request.headers_mut().insert(HEADER, id.clone());
    request.extensions_mut().insert(RequestId::new(id.clone()));
    id
}

// ANCHOR: from_fn
/// As a function: what stands before `next` happens on the way in, and what stands behind it on the way out.
async fn with_id(mut request: Request, next: Next) -> Response {
    let id = mark(&mut request);
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, id);
    response
}
// ANCHOR_END: from_fn

// ANCHOR: by_hand
/// By hand: a service around a service. `layer_fn` makes a layer of its constructor.
#[derive(Clone, Debug)]
struct WithIdService(Inner);

impl Service<Request> for WithIdService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let id = mark(&mut request);
        let next = self.0.call(request);
        Box::pin(async {
            let mut response = next.await?;
            response.headers_mut().insert(HEADER, id);
            Ok(response)
        })
    }
}
// ANCHOR_END: by_hand

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (HEADER, HeaderValue::from_bytes(value).unwrap())).collect()
    }

    #[test]
    fn an_id_from_outside_is_short_and_plain_or_it_is_none() {
        for good in ["a", "req-1", "0190b7e2.A_z", &"x".repeat(64)] {
            assert_eq!(given(&headers(&[good.as_bytes()])).unwrap(), good);
        }
        let long = "x".repeat(65);
        for bad in [
            &[][..],
            &[b"".as_slice()],
            &[long.as_bytes()],
            &[b"a", b"b"],
            &[b"a b"],
            &[b"a\"b"],
            &[b"a\xff"],
            &["ä".as_bytes()],
        ] {
            assert_eq!(given(&headers(bad)), None, "{bad:?}");
        }
    }
}
