//! Who asks? A layer that lets a request in with its user, or answers it, and then the handler never hears of it.

use std::task::{Context, Poll};
use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use edge::{Problem, header::bearer};
use futures_util::future::{BoxFuture, ready};
use sha2::{Digest, Sha256};
use tower::{Service, layer::layer_fn};
use tracing::Span;

use crate::layer::{Form, Inner, around};

/// Whose key the request showed. The handler finds it in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(pub String);

/// The digest of each key, and whose it is. How long it takes to find a digest says nothing about a key.
#[derive(Clone, Debug)]
pub struct Keys(Arc<HashMap<[u8; 32], User>>);

impl Keys {
    /// Of these users, each with a key.
    pub fn new(keys: &[(String, String)]) -> Self {
        let entry = |(user, key): &(String, String)| (digest(key), User(user.clone()));
        Self(Arc::new(keys.iter().map(entry).collect()))
    }

    // ANCHOR: admit
    /// Notes the user in the request. The answer to a request that must not go on is returned.
    pub fn refuse(&self, request: &mut Request) -> Option<Response> {
        let path = request.uri().path();
        // The router compares paths as they come, so this guard and the router cannot disagree.
        if path != "/notes" && !path.starts_with("/notes/") {
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
    // ANCHOR_END: admit
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Parses `USER=KEY`.
pub fn parse_key(text: &str) -> Result<(String, String), &'static str> {
    let both = text.split_once('=').filter(|(user, key)| !user.is_empty() && !key.is_empty());
    both.map(|(user, key)| (user.into(), key.into())).ok_or("write USER=KEY")
}

/// The layer, written in one of our two ways.
pub fn layer(form: Form, keys: Keys, inner: Inner) -> Inner {
    match form {
        Form::FromFn => around(&from_fn_with_state(keys, admitted), inner),
        _ => around(&layer_fn(|inner| AuthService { keys: keys.clone(), inner }), inner),
    }
}

// ANCHOR: from_fn
async fn admitted(State(keys): State<Keys>, mut request: Request, next: Next) -> Response {
    match keys.refuse(&mut request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}
// ANCHOR_END: from_fn

/// By hand.
#[derive(Clone, Debug)]
struct AuthService {
    keys: Keys,
    inner: Inner,
}

impl Service<Request> for AuthService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.keys.refuse(&mut request) {
            Some(refusal) => Box::pin(ready(Ok(refusal))),
            None => self.inner.call(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    /// The status of a refusal, or whom the request was let in for.
    fn ask(path: &str, authorizations: &[&str]) -> (Option<u16>, Option<User>) {
        let keys = Keys::new(&[("ada".into(), "a".into()), ("bob".into(), "b".into())]);
        let mut request = Request::builder().uri(path);
        for value in authorizations {
            request = request.header("authorization", *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let refused = keys.refuse(&mut request).map(|response| response.status().as_u16());
        (refused, request.extensions().get().cloned())
    }

    #[test]
    fn a_key_says_whose_request_it_is() {
        for (key, user) in [("Bearer a", "ada"), ("bearer b", "bob"), ("BEARER   a", "ada")] {
            assert_eq!(ask("/notes", &[key]), (None, Some(User(user.into()))), "{key}");
        }
    }

    #[test]
    fn without_one_good_key_nobody_gets_at_the_notes() {
        for path in ["/notes", "/notes/1", "/notes/", "/notes?x=/healthz"] {
            for keys in [&[][..], &["a"], &["Bearer c"], &["Basic a"], &["Bearer a", "Bearer a"]] {
                assert_eq!(ask(path, keys), (Some(401), None), "{path} {keys:?}");
            }
        }
    }

    #[test]
    fn what_only_begins_alike_needs_no_key() {
        for path in ["/healthz", "/notesofothers", "/slow?for=/notes"] {
            assert_eq!(ask(path, &[]), (None, None), "{path}");
        }
    }
}
