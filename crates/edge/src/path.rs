//! What is a part of the path, and what if it is no text?

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use crate::{frame::not_found, problem::Problem};

/// The only part of a path that is not fixed: `async fn show(name: Segment)` for `/queries/{name}`. Bytes that are no text
/// are the name of nothing: 404.
#[derive(Clone, Debug)]
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(not_found().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::Request, routing::get};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_part_of_the_path_is_text_or_leads_nowhere() {
        let router = Router::new().route("/{name}", get(async |name: Segment| name.0));
        for (path, status) in [("/a%20b", 200), ("/%ff", 404)] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{path}");
        }
    }
}
